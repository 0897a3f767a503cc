"""Shortcuts over engines and their providers for tests."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from stepback_server.engine.base import Engine, OnSample
from stepback_server.engine.supervisor import EngineProvider
from stepback_server.observability.engine import ObservedEngine
from stepback_server.observability.metrics import Live, Metrics
from tests.server.search.scripted import GRAMMAR

T = TypeVar("T")


async def use(keeper: EngineProvider, work: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
    """Work with a lent engine."""
    async with keeper.lend() as engine:
        return await work(engine)


def metrics() -> Metrics:
    """Metrics of a server that searches once, queues two and has restarted thrice."""
    return Metrics(
        Live(searching=lambda: 1, queued=lambda: 2, engines_up=lambda: True, restarts=lambda: 3)
    )


def charged(engine: Engine, charge: OnSample) -> ObservedEngine:
    """An engine that reports each sample to `charge`."""
    return ObservedEngine(engine, metrics(), GRAMMAR, 0, on_sample=charge)
