"""Work that is done again and again, and must outlive outages and defects."""

import logging
from collections.abc import Awaitable, Callable

from stepback_server.storage.errors import StorageUnavailable

_log = logging.getLogger(__name__)


async def attempt(work: Callable[[], Awaitable[None]]) -> None:
    """Work once. What it raises is logged: the next time may go well."""
    try:
        await work()
    except StorageUnavailable as error:
        _log.warning("jobs wait for the database: %s", error)
    except Exception as error:  # A defect at one job must not end the others.
        _log.error("jobs go on after an unexpected error", exc_info=error)
