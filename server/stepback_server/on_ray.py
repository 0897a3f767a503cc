"""Searches on a Ray cluster: a pool of actors, each with an engine and many searches in flight.

Ray Data reads what lies elsewhere. The actors are of Ray's core: a search is a loop over one engine
and no column of a table, and its caller writes each result as it comes, which is also what a
restart goes on from.
"""

import asyncio
import importlib
import logging
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

from stepback_server.local import LocalSolver, opened
from stepback_server.settings import ENVIRONMENT_PREFIX, read_settings

# By name: Ray is an extra that the type checker's environment lacks.
ray: Any = importlib.import_module("ray")
errors: Any = importlib.import_module("ray.exceptions")

_ATTEMPTS = 4
"""Tries of one search, should actors be lost with it."""
_CHECKS = 300
_SECONDS_BETWEEN_CHECKS = 2.0


class SearchActor:
    """One engine, opened by the first search. Its settings are the environment's."""

    def __init__(self, model: str, in_flight: int) -> None:
        self._model = Path(model)
        self._in_flight = in_flight
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._solver: LocalSolver | None = None

    async def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answer a body as HTTP does: a status, and the result or the error body."""
        return await (await self._opened()).answer(body)

    async def process(self) -> int:
        """Return the id of the actor's process."""
        return os.getpid()

    async def _opened(self) -> LocalSolver:
        async with self._opening:
            if self._solver is None:
                opening = opened(self._model, in_flight=self._in_flight)
                self._solver = await self._stack.enter_async_context(opening)
            return self._solver


class RayPool:
    """Gives each search to the actor with the fewest.

    Ray starts one that died again. What it had in flight goes to others, and it gets nothing more
    until it answers.
    """

    def __init__(self, actors: list[Any]) -> None:
        self.actors = actors
        self._load = dict.fromkeys(range(len(actors)), 0)
        self._returning: dict[int, asyncio.Task[None]] = {}

    async def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answer a body, by an error row where no actor survives it. Raises ConnectionError."""
        for _ in range(_ATTEMPTS):
            place = await self._place()
            self._load[place] += 1
            try:
                answer = await self.actors[place].answer.remote(body)
                return cast("tuple[int, dict[str, Any]]", answer)
            except errors.RayActorError:
                self._lose(place)
            except errors.RayError as error:
                raise ConnectionError(f"an actor has failed: {error}") from error
            finally:
                self._load[place] -= 1
        return 500, {"error": {"message": f"{_ATTEMPTS} actors were lost with this search"}}

    async def close(self) -> None:
        """Wait for no actor any more."""
        for task in self._returning.values():
            task.cancel()
        await asyncio.gather(*self._returning.values(), return_exceptions=True)

    async def _place(self) -> int:
        """The actor that lives and has the fewest searches; waits if there is none."""
        while True:
            alive = [place for place in self._load if place not in self._returning]
            if alive:
                return min(alive, key=lambda place: self._load[place])
            if all(task.done() for task in self._returning.values()):
                raise ConnectionError("every actor has died, and none comes back")
            waited = [task for task in self._returning.values() if not task.done()]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)

    def _lose(self, place: int) -> None:
        if place not in self._returning:
            task = asyncio.create_task(self._wait_for(place))
            self._returning[place] = task
            # One that never comes back stays unused.
            task.add_done_callback(lambda task: self._take_back(place, task))

    def _take_back(self, place: int, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is None:
            del self._returning[place]

    async def _wait_for(self, place: int) -> None:
        for _ in range(_CHECKS):
            await asyncio.sleep(_SECONDS_BETWEEN_CHECKS)
            with suppress(errors.RayActorError):
                await self.actors[place].process.remote()
                return
        raise ConnectionError(f"actor {place} has died and does not come back")


def _connect() -> None:
    """Join the cluster of RAY_ADDRESS, or start one on this machine. Raises OSError."""
    environment = {
        name: value for name, value in os.environ.items() if name.startswith(ENVIRONMENT_PREFIX)
    }
    # "local" by name: else Ray would look for the remains of another cluster on this machine.
    address = os.environ.get("RAY_ADDRESS") or "local"
    options = {"runtime_env": {"env_vars": environment}, "log_to_driver": False}
    try:
        ray.init(address, include_dashboard=False, **options)
    except OSError:
        raise
    except Exception as error:  # Ray has no class of its own for a node that does not start.
        raise ConnectionError(f"Ray does not start: {error}") from error


def read_text(address: str) -> Iterator[str]:
    """Read the lines of files at an address, compressed ones too. Raises ValueError and OSError."""
    # With the mark that some editors begin a file with, or without.
    read = {"drop_empty_lines": False, "encoding": "utf-8-sig"}
    return (row["text"] for row in _rows("read_text", address, read))


def read_tables(address: str) -> Iterator[dict[str, Any]]:
    """Read the rows of Parquet files at an address. Raises ValueError and OSError."""
    return _rows("read_parquet", address, {})


def _rows(reader: str, address: str, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows in the order of the files, which bare problems are numbered by. Connects to the cluster,
    and leaves it connected for the pool."""
    data: Any = importlib.import_module("ray.data")
    if not ray.is_initialized():
        _connect()
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    try:
        yield from getattr(data, reader)(address, **options).iter_rows()
    except errors.RayTaskError as error:
        raise ConnectionError(f"Ray Data cannot read {address}: {error.cause}") from error


@asynccontextmanager
async def pooled(model: Path, *, actors: int, in_flight: int) -> AsyncGenerator[RayPool]:
    """Start a pool on the cluster of RAY_ADDRESS, or on one of this machine's own.

    `model` is a folder on every node. Each actor has an engine with `in_flight` searches at once,
    and a GPU where the settings ask for one. Raises InvalidInput, and OSError without a cluster.
    """
    settings = read_settings(["--model", str(model)], command="batch")
    was_connected = ray.is_initialized()
    if not was_connected:
        _connect()
    options: dict[str, Any] = {
        "num_cpus": 1,
        "num_gpus": settings.tensor_parallel if settings.device == "cuda" else 0,
        "max_restarts": -1,
        "max_concurrency": in_flight + 1,
    }
    kind = ray.remote(SearchActor).options(**options)
    folder = os.path.abspath(model)  # noqa: ASYNC240 - no file is read
    made = [kind.remote(folder, in_flight) for _ in range(actors)]
    pool = RayPool(made)
    try:
        yield pool
    finally:
        await pool.close()
        for actor in made:
            ray.kill(actor)
        if not was_connected:
            ray.shutdown()
