"""Answers on their way into the database: many a transaction, and none lost in an outage."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from stepback_server.jobs.job import Answered, Job, JobAnswer, NotNow
from stepback_server.storage.errors import StorageUnavailable

_log = logging.getLogger(__name__)
_SECONDS_TO_TRY_AGAIN = 1.0


class AnswerWriter:
    """Collects what ends while a transaction runs, and writes it in the next one."""

    def __init__(self, finish: Callable[[Sequence[Answered]], Awaitable[None]]) -> None:
        self._finish = finish
        self._waiting: list[tuple[Answered, asyncio.Future[None]]] = []
        self._news = asyncio.Event()

    async def write(self, job: Job, answer: JobAnswer | NotNow | None) -> None:
        """Write an answer, None for a cancelled job, NotNow for one to put back; returns once it
        is kept."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(((job, answer), written))
        self._news.set()
        await asyncio.shield(written)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            group, self._waiting = self._waiting, []
            await self._write([answered for answered, _ in group])
            for _, written in group:
                written.set_result(None)

    async def _write(self, group: Sequence[Answered]) -> None:
        while True:
            try:
                return await self._finish(group)
            except StorageUnavailable as error:
                _log.warning("%d answers wait for the database: %s", len(group), error)
                await asyncio.sleep(_SECONDS_TO_TRY_AGAIN)
            except Exception as error:  # A defect at one answer must not lose the others.
                if len(group) == 1:
                    _log.error("an answer cannot be kept", exc_info=error)
                    return
                for one in group:
                    await self._write([one])
                return
