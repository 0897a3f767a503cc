"""Requests as the server answers them, over one engine in this process, with what each cost.

Rows are asked side by side, so that the engine's batches stay full. So nothing here says seconds.
"""

import asyncio
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from stepback_core.schemas import Answer, Select, SolveRequest, SolveResult
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import Engine
from stepback_server.engine.context import with_context
from stepback_server.engine.embedded import EmbeddedEngine
from stepback_server.engine.vllm_environment import prepare_environment_for
from stepback_server.settings import Settings
from stepback_server.solve.solver import Solver
from stepback_training.generators import Generator
from tests.benchmarks.counting import CountingEngine
from tests.benchmarks.kept import digest_of, keep_row, kept_row
from tests.benchmarks.rows import RULES, Asked, Row

MOST_CANDIDATES = 1024
_SECONDS = 3600.0
"""More than a search takes beside others on a busy machine."""


class RowSolver:
    """Solver of the problems of one task in this process; keeps each row in a file."""

    def __init__(
        self,
        engine: Engine,
        checkpoint: Checkpoint,
        task: Generator[Any],
        limit: asyncio.Semaphore,
        kept: Path,
    ) -> None:
        """`limit` is of the searches in flight."""
        self._engine = engine
        self._task = task
        self._model = checkpoint.digest
        self._solver = Solver(checkpoint, benchmark_settings())
        self._limit = limit
        self._kept = kept

    async def row(
        self,
        name: str,
        kind: str,
        options: dict[str, Any],
        problems: Sequence[BaseModel],
        seed: int,
    ) -> Row:
        """A row, asked only where no earlier process has kept it. Raises ValueError where the
        folder has such a row of another model, of other problems or of other options."""
        file = self._kept / f"{name}-{kind}-{len(problems)}-{seed}.json".replace(" ", "_")
        budget = options.get("budget", {}).get("tokens")
        source = {
            "solver": type(self).__name__,
            "model": self._model,
            "task": self._task.name,
            "problems": digest_of(problems),
            "options": options,
        }
        kept = kept_row(file, source)
        if kept is not None:
            return Row(name, kind, kept, budget)
        asked = await asyncio.gather(
            *(self._ask(problem, n, options) for n, problem in enumerate(problems))
        )
        print(f"done: {name} ({kind})", file=sys.stderr, flush=True)
        keep_row(file, source, asked)
        return Row(name, kind, list(asked), budget)

    async def _ask(self, problem: BaseModel, number: int, options: dict[str, Any]) -> Asked:
        request = SolveRequest.model_validate(
            {
                **self._fields(problem),
                "seed": number,
                "candidates": MOST_CANDIDATES,
                **options,
            }
        )
        counting = CountingEngine(self._engine)
        async with self._limit:
            order = await self._solver.accept(request)
            result = await self._solver.solve(order, counting, 0.0)
        usage = result.usage
        return Asked(
            right=self._right(problem, result.candidates),
            generated=usage.generated_tokens,
            prompted=counting.prompted,
            cached=usage.cached_tokens,
            requests=usage.engine_requests,
            p_marker=self._p_marker(problem, result),
        )

    def _fields(self, problem: BaseModel) -> dict[str, Any]:
        """Fields of a request for a problem."""
        return {"task": self._task.name, "problem": problem.model_dump(mode="json")}

    def _p_marker(self, problem: BaseModel, result: SolveResult) -> dict[str, list[float]]:
        """P(marker) after the model's own steps; nothing here."""
        return {}

    def _right(self, problem: BaseModel, candidates: Sequence[Answer]) -> dict[str, bool]:
        """Judge the choice of each rule, that of likelihood by the lax rule too, and *any*: a right
        candidate, which a checker finds."""
        chosen = {rule: max(candidates, key=key, default=None) for rule, key in RULES.items()}
        right = {
            rule: answer is not None and self._is_right(problem, answer)
            for rule, answer in chosen.items()
        }
        likeliest = chosen[Select.PERPLEXITY.value]
        return {
            **right,
            "lax": likeliest is not None and self._is_right_by_lax(problem, likeliest),
            "checker": any(self._is_right(problem, each) for each in candidates),
        }

    def _is_right(self, problem: BaseModel, answer: Answer) -> bool:
        return bool(answer.verified)

    def _is_right_by_lax(self, problem: BaseModel, answer: Answer) -> bool:
        return bool(answer.lax)


class BlindRowSolver(RowSolver):
    """Asks prompts instead of problems: a search sees neither the task's rules nor its checker."""

    def _fields(self, problem: BaseModel) -> dict[str, Any]:
        return {"prompt": self._task.checker.prompt(problem)}

    def _is_right(self, problem: BaseModel, answer: Answer) -> bool:
        return self._task.checker.check(problem, answer.steps).strict is True

    def _is_right_by_lax(self, problem: BaseModel, answer: Answer) -> bool:
        return self._task.checker.check(problem, answer.steps).lax is True


def benchmark_settings() -> Settings:
    """Settings of a server that cuts no search short."""
    return Settings(max_breadth=1024, budget_seconds=_SECONDS)


def start_engine(checkpoint: Checkpoint, running: int | None = None) -> EmbeddedEngine:
    """Start vLLM on a CPU as a controller does, for `running` sequences at once if given."""
    # Base models of many layers fill the usual cache with the searches of a benchmark.
    settings = Settings(model=checkpoint.folder, kv_cache_mib=1024)
    if running is not None:
        settings = settings.model_copy(update={"max_running": running})
    # For the engine's own process: this one has imported torch.
    prepare_environment_for(settings)
    served = with_context(checkpoint, settings)
    return EmbeddedEngine.start(served.folder, settings, context_tokens=served.context_tokens)


def gflop(checkpoint: Checkpoint, tokens: float) -> float:
    """GFLOP of forwarded tokens: two operations a parameter and token."""
    return 2 * int(checkpoint.manifest.training["parameters"]) * tokens / 1e9


def ordered(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.name, row.kind))
