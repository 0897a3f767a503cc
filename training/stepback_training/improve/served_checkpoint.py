"""The engines that a run searches with, a controller's or a Ray cluster's, and whose weights."""

import asyncio
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stepback_client import AsyncClient, SolveOptions
from stepback_core.manifest import weights_digest
from stepback_training.improve.model_errors import wrong_steps
from stepback_training.improve.outcomes import SearchOutcome
from stepback_training.sampling.bounded_gather import PATIENCE, ask_each, of_these_weights
from stepback_training.sampling.journal import Journal, Key, opened
from stepback_training.sampling.problems import Question, digest_of
from stepback_training.sampling.provenance import this_process
from stepback_training.sampling.searchers import Cluster, Failed, Search, at_controller

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
class SearchConfig:
    """Options of the search."""

    name: str
    options: SolveOptions
    seed: int
    keeps_errors: bool = False
    """Note the wrong steps that the search met."""

    def key(self, question: Question) -> Key:
        return self.name, question.split, question.number


StopOn = Callable[[asyncio.Event], None]
"""Has the event set when the asking is to stop; called within the running loop."""


def never(stop: asyncio.Event) -> None:
    """Let nothing stop the asking."""


class Engines(ABC):
    """The engines that a run searches with."""

    def __init__(self, at_once: int, stop_on: StopOn = never) -> None:
        self._at_once = at_once
        self._stop_on = stop_on

    @abstractmethod
    def serve(self, weights: Weights) -> None:
        """Have weights served after the run. Raises StepbackError, and ValueError where another
        model is."""

    @abstractmethod
    def release(self) -> None:
        """Free what a training may use: the next searches are of other weights."""

    @abstractmethod
    def _search(
        self, weights: Weights, journal: Journal[SearchOutcome]
    ) -> AbstractAsyncContextManager[Search]:
        """Give a search with these weights."""

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run(work)

    def ask(
        self,
        questions: Sequence[Question],
        config: SearchConfig,
        weights: Weights,
        path: Path,
        title: str,
    ) -> list[SearchOutcome]:
        """Return the outcomes of the questions under these weights. The journal at `path` keeps
        them, and what it has is not asked again.

        Raises StepbackError, ValueError where another model is served or no search had a result,
        InvalidInput, OSError and Stopped."""
        identity = {
            "model": weights.model,
            "digest": weights.digest,
            "options": dict(config.options),
            "seed": config.seed,
            "problems_sha256": digest_of(questions),
        }
        with opened(path, identity, SearchOutcome) as journal:
            left = [each for each in questions if config.key(each) not in journal.outcomes]
            if left:
                with tqdm(total=len(questions), initial=len(questions) - len(left)) as bar:
                    bar.set_description(title)
                    self._run(self._ask(left, config, weights, journal, bar))
            found = [journal.outcomes[config.key(each)] for each in questions]
        if found and all(each.failure for each in found):
            raise ValueError(f"{path}: every search failed, the last one by: {found[-1].failure}")
        return found

    async def _ask(
        self,
        left: Sequence[Question],
        config: SearchConfig,
        weights: Weights,
        journal: Journal[SearchOutcome],
        bar: "tqdm[Any]",
    ) -> None:
        def keep(question: Question, outcome: SearchOutcome) -> None:
            journal.add(config.key(question), outcome)
            bar.update()

        stop = asyncio.Event()
        self._stop_on(stop)
        async with self._search(weights, journal) as search:
            journal.begin_run({**this_process(), "in_flight": self._at_once})
            ask = partial(_outcome, search, config)
            await ask_each(left, ask, keep, in_flight=self._at_once, stop=stop)


class Controller(Engines):
    """The engine of a running controller, which is given the weights."""

    def __init__(self, url: str, in_flight: int, stop_on: StopOn = never) -> None:
        super().__init__(in_flight, stop_on)
        self._url = url

    def serve(self, weights: Weights) -> None:
        async def run() -> None:
            async with self._client() as client:
                await _serve(client, weights)

        asyncio.run(run())

    def release(self) -> None:
        """Free nothing: an engine that idles is the controller's own."""

    @asynccontextmanager
    async def _search(
        self, weights: Weights, journal: Journal[SearchOutcome]
    ) -> AsyncGenerator[Search]:
        async with self._client() as client:
            await _serve(client, weights)
            async with of_these_weights(client, weights.digest, journal):
                yield at_controller(client)

    def _client(self) -> AsyncClient:
        return AsyncClient.from_environment(self._url, retry=PATIENCE)


class OnRay(Engines):
    """Engines on a Ray cluster, started for one state of the weights after the other."""

    def __init__(self, cluster: Cluster, stop_on: StopOn = never) -> None:
        super().__init__(cluster.at_once, stop_on)
        self._cluster = cluster
        # One loop for all that is asked: actors stay from one asking to the next.
        self._runner = asyncio.Runner()
        self._actors = AsyncExitStack()
        self._served: tuple[str, Search] | None = None

    def serve(self, weights: Weights) -> None:
        """Serve nothing: after the run the cluster has no engine of ours."""

    def release(self) -> None:
        self._run(self._stop())

    def close(self) -> None:
        """End the actors."""
        self.release()
        self._runner.close()

    @asynccontextmanager
    async def _search(
        self, weights: Weights, journal: Journal[SearchOutcome]
    ) -> AsyncGenerator[Search]:
        if self._served is None or self._served[0] != weights.digest:
            await self._stop()
            opening = self._cluster.search(weights.folder, weights.digest)
            self._served = weights.digest, await self._actors.enter_async_context(opening)
        yield self._served[1]

    async def _stop(self) -> None:
        self._served = None
        await self._actors.aclose()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            self._runner.run(work)
        finally:
            # The loop that outlives the asking must not keep its signals from the training.
            for number in (signal.SIGINT, signal.SIGTERM):
                self._runner.get_loop().remove_signal_handler(number)


async def _serve(client: AsyncClient, weights: Weights) -> None:
    told = await client.version()
    if told.model != weights.model:
        raise ValueError(f"the controller serves {told.model}, not {weights.model}")
    if told.digest != weights.digest:
        await client.reload(weights.model, str(weights.folder.resolve()))


async def _outcome(search: Search, config: SearchConfig, question: Question) -> SearchOutcome:
    mine = SolveOptions(seed=question.seed(config.seed), tree=config.keeps_errors)
    try:
        result = await search(question.problem, config.options | mine)
    except Failed as error:
        return SearchOutcome.failed(question, str(error))
    outcome = SearchOutcome.of(question, result)
    if not (outcome.solved and config.keeps_errors):
        return outcome
    wrong = wrong_steps(question.task, question.problem, outcome.steps, result.tree or ())
    return outcome.model_copy(update={"wrong": wrong[:_WRONG_STEPS]})
