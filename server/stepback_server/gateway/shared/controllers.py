"""State that this controller shares with others over one PostgreSQL."""

import asyncio
import logging
from collections.abc import Callable

from stepback_server.concurrency import run_all
from stepback_server.gateway.rate_limit import RateLimiter
from stepback_server.gateway.shared.answers import SharedAnswers
from stepback_server.gateway.shared.ledger import Ledger
from stepback_server.settings import Settings

_log = logging.getLogger(__name__)


class SharedControllers:
    """The ledger of limits and the answers. `run` it in a task."""

    def __init__(
        self, settings: Settings, meter: RateLimiter, took: Callable[[float], None]
    ) -> None:
        """`took` takes the seconds of each round with the database."""
        url = settings.database_url.get_secret_value()
        self.ledger = Ledger(url, settings.shared_seconds, meter, settings.lease_seconds, took)
        self.answers = SharedAnswers(
            url,
            settings.shared_seconds,
            lease_seconds=settings.lease_seconds,
            keep_seconds=settings.idempotency_seconds,
            max_results=settings.idempotency_results,
            max_bytes=settings.idempotency_mib << 20,
        )

    @classmethod
    def of(
        cls, settings: Settings, meter: RateLimiter, took: Callable[[float], None]
    ) -> "SharedControllers | None":
        """Make what the settings ask for; None without a database that controllers can share."""
        # SQLite is a file of this machine, which no other controller has.
        is_shared = settings.database_url.get_secret_value().startswith("postgres")
        return cls(settings, meter, took) if is_shared else None

    @property
    def is_shared(self) -> bool:
        """False while this controller counts for itself."""
        return self.ledger.is_shared and self.answers.is_shared

    async def run(self) -> None:
        """Keep in step with the others until cancelled."""
        try:
            await run_all((self.ledger.run(), self.answers.run()))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # A defect here must not end a search: each counts for itself.
            _log.error("this controller counts for itself from now on", exc_info=error)
