"""The running controller: the weights that it is to serve, and problems to outcomes through it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stepback_client import AsyncClient, SolveOptions
from stepback_core.manifest import weights_digest
from stepback_training.improve.model_errors import wrong_steps
from stepback_training.improve.outcomes import Outcome
from stepback_training.sampling.bounded_gather import PATIENCE, ask_each, finished, of_these_weights
from stepback_training.sampling.journal import Journal, Key, opened
from stepback_training.sampling.problems import Question, digest_of
from stepback_training.sampling.provenance import this_process

# Kept of one problem, or the hard ones would be most of the samples.
_WRONG_STEPS = 4


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights to serve."""

    model: str
    folder: Path
    digest: str

    @classmethod
    def at(cls, model: str, folder: Path) -> "Weights":
        return cls(model, folder, weights_digest(folder))


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How to search."""

    name: str
    options: SolveOptions
    seed: int
    keeps_errors: bool = False
    """Whether to note the wrong steps that the search met."""

    def key(self, question: Question) -> Key:
        return self.name, question.split, question.number


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """A controller's address and load."""

    url: str
    in_flight: int
    stop_on: Callable[[asyncio.Event], None] = lambda stop: None
    """Has the event set when the asking is to stop; called within the running loop."""

    def serve(self, weights: Weights) -> None:
        """Have weights served. Raises StepbackError, and ValueError where another model is."""

        async def run() -> None:
            async with self._client() as client:
                await _serve(client, weights)

        asyncio.run(run())

    def ask(
        self, questions: Sequence[Question], way: Way, weights: Weights, path: Path, title: str
    ) -> list[Outcome]:
        """Return the outcomes of the questions under these weights. The journal at `path` keeps
        them, and what it has is not asked again.

        Raises what `serve` does, InvalidInput and Stopped."""
        identity = {
            "model": weights.model,
            "digest": weights.digest,
            "options": dict(way.options),
            "seed": way.seed,
            "problems_sha256": digest_of(questions),
        }
        with opened(path, identity, Outcome) as journal:
            left = [each for each in questions if way.key(each) not in journal.outcomes]
            if left:
                with tqdm(total=len(questions), initial=len(questions) - len(left)) as bar:
                    bar.set_description(title)
                    asyncio.run(self._ask(left, way, weights, journal, bar))
            return [journal.outcomes[way.key(each)] for each in questions]

    def _client(self) -> AsyncClient:
        return AsyncClient.from_environment(self.url, retry=PATIENCE)

    async def _ask(
        self,
        left: Sequence[Question],
        way: Way,
        weights: Weights,
        journal: Journal[Outcome],
        bar: "tqdm[Any]",
    ) -> None:
        def keep(question: Question, outcome: Outcome) -> None:
            journal.add(way.key(question), outcome)
            bar.update()

        stop = asyncio.Event()
        self.stop_on(stop)
        async with self._client() as client:
            await _serve(client, weights)
            journal.begin_run({**this_process(), "in_flight": self.in_flight})
            ask = partial(_outcome, client, way)
            async with of_these_weights(client, weights.digest, journal):
                await ask_each(left, ask, keep, in_flight=self.in_flight, stop=stop)


async def _serve(client: AsyncClient, weights: Weights) -> None:
    told = await client.version()
    if told.model != weights.model:
        raise ValueError(f"the controller serves {told.model}, not {weights.model}")
    if told.digest != weights.digest:
        await client.reload(weights.model, str(weights.folder.resolve()))


async def _outcome(client: AsyncClient, way: Way, question: Question) -> Outcome:
    mine = SolveOptions(seed=question.seed(way.seed), tree=way.keeps_errors)
    result = finished(await client.solve(question.problem, **(way.options | mine)))
    outcome = Outcome.of(question, result)
    if not (outcome.solved and way.keeps_errors):
        return outcome
    wrong = wrong_steps(question.task, question.problem, outcome.steps, result.tree or ())
    return outcome.model_copy(update={"wrong": wrong[:_WRONG_STEPS]})
