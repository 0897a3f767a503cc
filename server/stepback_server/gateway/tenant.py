"""A tenant: the operator's name for a caller, and its limits."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tenant:
    """A caller with a name of its own, and its limits; None is no limit of its own."""

    name: str
    max_searches: int | None = None
    """Searches in flight."""
    tokens_per_minute: int | None = None
    """Generated tokens, those of discarded branches included."""

    @property
    def is_limited(self) -> bool:
        """Tell whether it has a limit of its own, which holds over all controllers."""
        return self.max_searches is not None or self.tokens_per_minute is not None


ANYONE = Tenant("anyone")
"""Every caller of a server without keys."""
