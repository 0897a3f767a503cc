"""Rate limits: a token bucket for each tenant."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from stepback_server.gateway.tenant import Tenant


@dataclass(slots=True)
class _Level:
    """Tokens of a bucket at a time; below zero they are a debt."""

    tokens: float
    at: float


class RateLimiter:
    """One token bucket a tenant: a minute's worth at most, filled steadily.

    What a search will cost is not known before it ran. So it may start while the bucket holds
    anything, is charged for each token that it generates, and may leave a debt, which has to fill
    up before the next one starts: over time the rate holds exactly, whatever a search costs.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._levels: dict[str, _Level] = {}
        # Kept apart from the level, which each round with the database sets.
        self._unreported: Counter[str] = Counter()
        """Tokens by tenant that other controllers do not know of."""

    def wait(self, tenant: Tenant) -> int:
        """Whole seconds until the tenant may start a search; 0 is now."""
        if tenant.tokens_per_minute is None:
            return 0
        tokens = self._level(tenant.name, tenant.tokens_per_minute).tokens
        if tokens > 0:
            return 0
        # To the next second: at the very moment the bucket would hold nothing yet.
        return math.floor(-tokens * 60 / tenant.tokens_per_minute) + 1

    def charge(self, tenant: Tenant, tokens: int) -> None:
        """Take what was generated."""
        if tenant.tokens_per_minute is not None:
            self._level(tenant.name, tenant.tokens_per_minute).tokens -= tokens
            self._unreported[tenant.name] += tokens

    def unreported(self, name: str) -> int:
        """Tokens that other controllers do not know of."""
        return self._unreported[name]

    def take_unreported(self, name: str) -> int:
        """The same, which are reported now."""
        return self._unreported.pop(name, 0)

    def put_back(self, name: str, tokens: int) -> None:
        """Report these later: the report was not delivered."""
        if tokens:
            self._unreported[name] += tokens

    def correct(self, tenant: Tenant, tokens: float) -> None:
        """Fill a bucket to what all controllers have left in it."""
        if tenant.tokens_per_minute is not None:
            self._level(tenant.name, tenant.tokens_per_minute).tokens = tokens

    def _level(self, name: str, per_minute: int) -> _Level:
        """The bucket of a name, filled up to now."""
        now = self._clock()
        level = self._levels.setdefault(name, _Level(per_minute, now))
        # Filled when it is read: no timer for unused keys.
        level.tokens = min(per_minute, level.tokens + (now - level.at) * per_minute / 60)
        level.at = now
        return level
