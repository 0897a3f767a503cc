"""Places of a training command's searches: a controller, or a Ray cluster."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from stepback_client import AsyncClient, SolveOptions, SolveResult, StepbackError, solve_body
from stepback_client.batch import Solve, finished, on_ray

Search = Callable[[BaseModel, SolveOptions], Awaitable[SolveResult]]
"""Function that searches for one problem's answer. Raises Failed where this one has no result, and
others may."""


class Failed(StepbackError):
    """A search that was refused, or lost each time that it was tried."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The engines of a Ray cluster: that of RAY_ADDRESS, or a local one."""

    actors: int
    in_flight: int
    """Searches at once in each actor."""

    @property
    def at_once(self) -> int:
        return self.actors * self.in_flight

    @asynccontextmanager
    async def search(self, model: Path, digest: str) -> AsyncGenerator[Search]:
        """Give a search with these weights, which every node has in this folder.

        Raises ModuleNotFoundError, InvalidInput and OSError; a search raises StepbackError where a
        node has other weights.
        """
        async with on_ray(model, self.actors, self.in_flight) as solve:
            yield _checked(solve, digest)


def at_controller(client: AsyncClient) -> Search:
    """Return a search at a controller. Its refusals end the command: it raises no Failed."""

    async def search(problem: BaseModel, options: SolveOptions) -> SolveResult:
        return finished(await client.solve(problem, **options))

    return search


def _checked(solve: Solve, digest: str) -> Search:
    async def search(problem: BaseModel, options: SolveOptions) -> SolveResult:
        answer = await solve(solve_body(problem, options))
        if "error" in answer:
            raise Failed(answer["error"]["message"])
        result = SolveResult.model_validate(answer["result"])
        if result.digest != digest:
            raise StepbackError("a node of the cluster has other weights in the model's folder")
        return result

    return search
