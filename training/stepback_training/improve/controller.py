"""The running controller: the weights that it is to serve, and problems to outcomes through it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stepback_client import AsyncClient, Retry, SolveResult
from stepback_client.base import SolveOptions
from stepback_core.manifest import weights_digest
from stepback_training.improve.ledger import Ledger, Outcome, WrongStep
from stepback_training.improve.mistakes import wrong_steps
from stepback_training.improve.problems import Question, seed_of

_PATIENT = Retry(attempts=8, longest_wait=30.0)
"""An engine that is lost comes back within seconds, and a round should outlast that."""
_WRONG_STEPS = 4
"""Kept of one problem, or the hard ones would be most of the samples."""


class WeightsChanged(Exception):
    """The controller served other weights than those that were asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How to search."""

    options: SolveOptions
    seed: int
    keeps_errors: bool = False
    """Whether to note the wrong steps that the search met."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """Where it is, and how much it is asked at once."""

    url: str
    api_key: str | None
    in_flight: int

    def serve(self, model: str, checkpoint: Path) -> None:
        """Have a checkpoint of a model served. Raises StepbackError, and ValueError where another
        model is served."""
        folder, digest = checkpoint.resolve(), weights_digest(checkpoint)
        asyncio.run(self._serve(model, folder, digest))

    def ask(
        self,
        questions: Sequence[Question],
        way: Way,
        path: Path,
        *,
        model: str,
        checkpoint: Path,
        title: str,
    ) -> list[Outcome]:
        """What a checkpoint makes of the questions. Those in the ledger at `path` are not asked
        again, the others are written there one by one.

        Raises what `serve` does, and WeightsChanged."""
        ledger = Ledger(path)
        missing = [question for question in questions if question.number not in ledger]
        if missing:
            self.serve(model, checkpoint)
            with tqdm(total=len(questions), initial=len(questions) - len(missing)) as bar:
                bar.set_description(title)
                digest = weights_digest(checkpoint)
                asyncio.run(self._ask(missing, way, ledger, bar, digest))
        return ledger.of(question.number for question in questions)

    def _client(self) -> AsyncClient:
        return AsyncClient(self.url, api_key=self.api_key, retry=_PATIENT)

    async def _serve(self, model: str, folder: Path, digest: str) -> None:
        async with self._client() as client:
            told = await client.version()
            if told.model != model:
                raise ValueError(f"the controller serves {told.model}, not {model}")
            if told.digest != digest:
                await client.reload(model, str(folder))

    async def _ask(
        self,
        missing: Sequence[Question],
        way: Way,
        ledger: Ledger,
        bar: "tqdm[Any]",
        digest: str,
    ) -> None:
        queue = iter(missing)

        async def work() -> None:
            for question in queue:
                ledger.add(await _outcome(client, question, way))
                bar.update()

        async with self._client() as client:
            workers = [asyncio.ensure_future(work()) for _ in range(self.in_flight)]
            try:
                await asyncio.gather(*workers)
            finally:
                for each in workers:
                    each.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
            if (await client.version()).digest != digest:
                raise WeightsChanged(
                    f"{ledger.path}: the controller was given other weights meanwhile: remove this "
                    "file, and keep others from loading weights there"
                )


async def _outcome(client: AsyncClient, question: Question, way: Way) -> Outcome:
    mine = SolveOptions(seed=seed_of(way.seed, question.number), tree=way.keeps_errors)
    result = await client.solve(question.problem, **(way.options | mine))
    steps = result.answer.steps if result.answer else []
    # Judged here, not only there: what is trained on must not hang on another's version.
    solved = bool(steps) and question.task.check(question.problem, steps).strict
    return Outcome(
        number=question.number,
        task=question.task.name,
        problem=question.problem.model_dump(mode="json"),
        solved=solved,
        steps=steps,
        wrong=_mistakes(question, result) if solved else [],
        tokens=result.usage.generated_tokens,
    )


def _mistakes(question: Question, result: SolveResult) -> list[WrongStep]:
    path = result.answer.steps if result.answer else []
    found = wrong_steps(question.task, question.problem, path, result.tree or ())
    return found[:_WRONG_STEPS]
