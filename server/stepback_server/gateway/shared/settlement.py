"""The share of a key's limits that one controller gets, by what all have taken. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Want(NamedTuple):
    """A search that waits for a place; a smaller one goes first."""

    urgency: int
    since: float
    """Start of the wait, by the database's clock."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The searches of a key at one controller, as the others see them."""

    held: int
    """Places of searches in flight, and of those that may begin at any moment."""
    wants: tuple[Want, ...]
    """Searches that found no place."""
    renewed: float


@dataclass(frozen=True, slots=True)
class KeyState:
    """A key's row in the database."""

    tokens: float | None
    """Tokens in its bucket at `filled`; None: it is full."""
    filled: float
    claims: Mapping[str, Claim]
    """Claims by controller."""


@dataclass(frozen=True, slots=True)
class Report:
    """The state of a key at one controller, and what it asks for."""

    owner: str
    tenant: str
    max_searches: int | None
    tokens_per_minute: int | None
    held: int
    """Places that it does not give back."""
    wants: Sequence[tuple[int, float]]
    """Urgency of each search without a place, and the seconds that it has waited."""
    spent: int
    """Tokens since its last report."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcome of a report."""

    state: KeyState
    held: int
    has_rivals: bool
    """Others wait for places: one that becomes free is not for this controller to give away."""
    others_should_look: bool
    tokens: float | None
    """Level of the bucket; None without such a limit."""


def settle(state: KeyState, report: Report, now: float, lease: float) -> Settled:
    """Give places to who has waited longest, wherever it waits, and take tokens from the bucket.
    A controller that has not renewed its claim for a lease's time has none."""
    others = {
        owner: claim
        for owner, claim in state.claims.items()
        # A controller that was killed frees its places so.
        if owner != report.owner and claim.renewed > now - lease
    }
    wants = sorted(Want(urgency, now - seconds) for urgency, seconds in report.wants)
    granted, left = _places(others, report, wants)
    rivals = any(claim.wants for claim in others.values())
    mine = Claim(report.held + granted, tuple(wants[granted:]), now)
    # Nothing held and nothing wanted: no entry, so that a row does not grow with every controller
    # that ever was.
    claims = others | ({report.owner: mine} if mine.held or mine.wants else {})
    tokens = _tokens(state, report, now)
    before = state.claims.get(report.owner)
    begins_to_wait = bool(mine.wants) and not (before and before.wants)
    return Settled(
        KeyState(tokens, now, claims),
        mine.held,
        rivals,
        # A search that just begins concerns no other controller: most rounds notify none.
        begins_to_wait or (rivals and left > 0),
        tokens,
    )


def _places(others: Mapping[str, Claim], report: Report, wants: Sequence[Want]) -> tuple[int, int]:
    """Tell how many of the wants get a place, and how many places are left for others."""
    if report.max_searches is None:
        return len(wants), 0
    free = report.max_searches - report.held - sum(claim.held for claim in others.values())
    if free <= 0:
        return 0, 0
    queue = [(want, report.owner) for want in wants]
    queue += [(want, owner) for owner, claim in others.items() for want in claim.wants]
    # Places for others are left free here, and given when those report: no controller writes in
    # another's claim.
    granted = sum(owner == report.owner for _, owner in sorted(queue)[:free])
    return granted, free - granted


def _tokens(state: KeyState, report: Report, now: float) -> float | None:
    if report.tokens_per_minute is None:
        return None
    most = float(report.tokens_per_minute)
    level = most if state.tokens is None else state.tokens
    level += max(0.0, now - state.filled) * most / 60
    # Spent comes off after the cap, or a full bucket would forgive it.
    return min(most, level) - report.spent
