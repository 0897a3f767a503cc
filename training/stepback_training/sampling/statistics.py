"""Shares of problems with what chance leaves open, and how a cost is spread."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt

import numpy
from pydantic import BaseModel, ConfigDict

# Quantile of the standard normal distribution: 95 % lie within.
_Z = 1.959964


def wilson(hits: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share, in percent (Wilson 1927: it holds near 0 and 100 % too).

    Raises ValueError for a share of nothing.
    """
    if not 0 <= hits <= total or not total:
        raise ValueError(f"{hits} of {total} is no share")
    z, share = _Z, hits / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * sqrt(share * (1 - share) / total + z * z / (4 * total**2)) / (1 + z * z / total)
    return max(0.0, 100 * (middle - half)), min(100.0, 100 * (middle + half))


@dataclass(frozen=True, slots=True)
class Pairs:
    """Two solvers of the same problems, by the problems that only one of them solves."""

    wins: int
    losses: int
    of: int

    @classmethod
    def count(cls, one: Sequence[bool], other: Sequence[bool]) -> "Pairs":
        """Raises ValueError where they are not of the same problems."""
        pairs = list(zip(one, other, strict=True))
        return cls(pairs.count((True, False)), pairs.count((False, True)), len(pairs))

    @property
    def points(self) -> float:
        """Lead of the first, in per cent of the problems."""
        return 100 * (self.wins - self.losses) / self.of

    @property
    def p(self) -> float:
        """The exact two-sided chance of a share so uneven, were both equally good (McNemar)."""
        total = self.wins + self.losses
        tail = sum(comb(total, k) for k in range(min(self.wins, self.losses) + 1))
        return min(1.0, 2 * tail / 2**total)


class Share(BaseModel):
    """Share of the problems in percent, with its 95 % Wilson interval."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hits: int
    of: int
    percent: float
    low: float
    high: float

    @classmethod
    def count(cls, hits: Sequence[bool]) -> "Share":
        low, high = wilson(sum(hits), len(hits))
        percent = 100 * sum(hits) / len(hits)
        return cls(
            hits=sum(hits),
            of=len(hits),
            percent=round(percent, 3),
            low=round(low, 3),
            high=round(high, 3),
        )


class Spread(BaseModel):
    """A cost over the problems; percentiles are interpolated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: float
    p50: float
    p99: float

    @classmethod
    def over(cls, values: Sequence[float]) -> "Spread":
        p50, p99 = numpy.percentile(values, [50, 99])
        return cls(mean=round(sum(values) / len(values), 4), p50=round(p50, 4), p99=round(p99, 4))
