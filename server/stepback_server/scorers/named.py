"""The scorers by name, as the operator's file has them."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from stepback_server.errors import ApiError
from stepback_server.scorers.config import headers_of, read_entries
from stepback_server.scorers.scorer import Report, Scorer


class Scorers:
    """Every scorer that a request may name."""

    def __init__(self, scorers: Mapping[str, Scorer] | None = None) -> None:
        self._scorers = dict(scorers or {})

    @classmethod
    def read(cls, path: Path | None, environment: Mapping[str, str], report: Report) -> "Scorers":
        """Read the operator's file; without one there are none. Raises InvalidInput."""
        entries = {} if path is None else read_entries(path)
        return cls(
            {
                name: Scorer(name, entry, headers_of(entry, environment, f"{path}: {name}"), report)
                for name, entry in entries.items()
            }
        )

    @property
    def names(self) -> list[str]:
        return list(self._scorers)

    def find(self, name: str) -> Scorer:
        """Find a scorer. Raises ApiError."""
        found = self._scorers.get(name)
        if found is None:
            raise ApiError(
                "unknown_scorer",
                f"scorer: this server has {', '.join(self._scorers)}; give one of these, or none."
                if self._scorers
                else "scorer: this server has no scorers; leave it out.",
                param="scorer",
            )
        return found

    async def close(self) -> None:
        """Close the connections of all."""
        await asyncio.gather(*(scorer.close() for scorer in self._scorers.values()))
