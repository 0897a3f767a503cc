"""The searches that are compared, each at the best setting that it has."""

from dataclasses import dataclass, field
from typing import Any

TEMPERATURE = 1.3
"""Best for sampling from this checkpoint, on the development problems."""
LONGEST = 66
"""Tokens of the longest Countdown answer that a sample may have."""


@dataclass(frozen=True, slots=True)
class PeerRow:
    """One search: who has it, what it is asked for, and if it sees the checker."""

    by: str
    name: str
    method: str
    checker: bool
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.by}: {self.name}{', checker' if self.checker else ''}"


OURS = "Stepback"
ITS_HUB = "its_hub"
OPTILLM = "OptiLLM"
VLLM = "vLLM"


def _ours(name: str, *, budget: int | None = None, **options: Any) -> PeerRow:
    if budget is None:
        return PeerRow(OURS, name, "solve", checker=False, options=options)
    asked = options | {"select": "verified", "tokens": budget}
    return PeerRow(OURS, f"{name}, budget {budget}", "solve", checker=True, options=asked)


def _its_hub(name: str, method: str, *, checker: bool, **options: Any) -> PeerRow:
    limits = {"temperature": TEMPERATURE, "longest": LONGEST}
    return PeerRow(ITS_HUB, name, method, checker, limits | options)


def _optillm(name: str, method: str, **options: Any) -> PeerRow:
    limits = {"temperature": TEMPERATURE, "longest": LONGEST}
    return PeerRow(OPTILLM, name, method, checker=False, options=limits | options)


def _beams(width: int, *, checker: bool) -> PeerRow:
    return PeerRow(VLLM, f"beam search, {width} beams", "beams", checker, {"width": width})


BASE_WITH = _ours("best-first", budget=250, strategy="best_first")
"""Row that every other one with the checker is compared with."""
_SAMPLED = {"strategy": "best_of_n", "temperature": TEMPERATURE}
BASE_WITHOUT = _ours("8 samples, by marker", breadth=8, select="marker", **_SAMPLED)
"""Row that every other one without the checker is compared with."""

ROWS = [
    BASE_WITH,
    _ours("best-of-N, widening", budget=250, breadth=256, **_SAMPLED),
    _its_hub("best-of-N, one at a time, 10 at most", "until", checker=True, n=10),
    _its_hub("best-of-N, N=2", "best_of_n", checker=True, n=2),
    _its_hub("best-of-N, N=8", "best_of_n", checker=True, n=8),
    _its_hub("particle filtering, 4 particles", "particles", checker=True, n=4),
    _its_hub("beam search, 2 beams of 4", "beams", checker=True, n=8, width=2),
    _beams(2, checker=True),
    _beams(4, checker=True),
    _ours("greedy", strategy="greedy", select="perplexity"),
    BASE_WITHOUT,
    _ours("8 samples, likeliest", breadth=8, select="perplexity", **_SAMPLED),
    _ours("best-first of 200 tokens, by marker", breadth=8, tokens=200, select="marker"),
    _ours("majority of 8", strategy="majority", breadth=8, temperature=TEMPERATURE),
    _its_hub("self-consistency of 8", "vote", checker=False, n=8),
    _its_hub("adaptive self-consistency of 16", "adaptive", checker=False, n=16),
    _its_hub("Beta self-consistency of 16", "beta", checker=False, n=16),
    _optillm("majority_voting, k=8", "majority_voting", n=8),
    _optillm("self_consistency (5 samples)", "self_consistency"),
    _optillm("bon, n=3", "bon", n=3),
    _optillm("moa", "moa"),
    _optillm("mcts", "mcts"),
    _beams(4, checker=False),
]
