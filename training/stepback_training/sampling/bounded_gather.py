"""The scheduler of the client package, and a guard against a change of the weights."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from stepback_client import AsyncClient, StepbackError
from stepback_client.batch import PATIENCE, Stopped, ask_each, finished
from stepback_training.sampling.journal import Journal

__all__ = [
    "PATIENCE",
    "Stopped",
    "ask_each",
    "finished",
    "of_these_weights",
]


@asynccontextmanager
async def of_these_weights(
    client: AsyncClient, digest: str | None, journal: Journal[Any]
) -> AsyncGenerator[None]:
    """Guard a block against a weight reload; `digest` is None if the controller does not tell.

    Raises StepbackError if other weights are served in the end. It is unknown then which of them
    gave which answer, so what this process has kept is taken out of the journal again.
    """
    try:
        yield
    except Stopped as stopped:
        # A controller in trouble would not tell.
        if stopped.__cause__ is None:
            await _check(client, digest, journal)
        raise
    await _check(client, digest, journal)


async def _check(client: AsyncClient, digest: str | None, journal: Journal[Any]) -> None:
    # Compared at the end: new weights may come at any moment in between.
    if digest is not None and (await client.version()).digest != digest:
        journal.take_back()
        raise StepbackError(
            f"the controller was given other weights meanwhile, and what was asked of it since was "
            f"dropped from {journal.path}: keep others from loading weights there"
        )
