"""Printed report of the comparison."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stepback_training.sampling.statistics import Pairs, wilson
from tests.benchmarks.measuring import share
from tests.benchmarks.peers.rows import BASE_WITH, BASE_WITHOUT, PeerRow


@dataclass(frozen=True, slots=True)
class Block:
    """One search on a part of the problems, and what the server counted meanwhile."""

    right: list[bool]
    errors: list[str]
    seconds: float
    generated: int
    prompted: int
    cached: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One search on all parts, in their order."""

    row: PeerRow
    blocks: list[Block]

    @property
    def right(self) -> list[bool]:
        return [each for block in self.blocks for each in block.right]

    @property
    def errors(self) -> list[str]:
        return [error for block in self.blocks for error in block.errors]

    @property
    def generated(self) -> float:
        """Tokens a problem."""
        return sum(block.generated for block in self.blocks) / len(self.right)

    @property
    def forwarded(self) -> float:
        """Tokens a problem through the model: generated ones and prompts that were not cached."""
        prefilled = sum(block.prompted - block.cached for block in self.blocks)
        return self.generated + prefilled / len(self.right)


def base_of(row: PeerRow) -> PeerRow:
    return BASE_WITH if row.checker else BASE_WITHOUT


def table(measured: Sequence[Measured]) -> str:
    known = {each.row.key: each for each in measured}
    lines = [
        "| by | search | solved % (95 %) | generated | forwarded | solved per 1,000 tokens (95 %) "
        "| problems/s against ours |",
        "| --- " * 7 + "|",
    ]
    lines += [_line(each, known[base_of(each.row).key]) for each in measured]
    return "\n".join(lines)


def _line(each: Measured, base: Measured) -> str:
    hits, count = sum(each.right), len(each.right)
    low, high = wilson(hits, count)
    if len(each.errors) == count:
        shown = "refused | | | | "
    else:
        per_token = 10 / each.generated
        shown = (
            f"{share(hits, count, 1)} | {each.generated:.0f} "
            f"| {each.forwarded:.0f} | {per_token * 100 * hits / count:.1f} "
            f"({per_token * low:.1f} to {per_token * high:.1f}) | {_speed(each, base)}"
        )
    return f"| {each.row.by} | {each.row.name} | {shown} |"


def _speed(each: Measured, base: Measured) -> str:
    """Solved problems a second as a ratio, part by part: parts of one turn shared a machine."""
    if each.row == base.row:
        return "1"
    ratios = [
        (sum(one.right) / one.seconds) / (sum(other.right) / other.seconds)
        for one, other in zip(each.blocks, base.blocks, strict=True)
    ]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def pairs(measured: Sequence[Measured], base: PeerRow) -> str:
    """Our search of one kind, problem by problem, against each other of its kind."""
    known = {each.row.key: each for each in measured}
    ours = known[base.key]
    lines = [
        f"| {base.name} against | only ours | only the other | points | p | tokens, ratio |",
        "| --- " * 6 + "|",
    ]
    for each in measured:
        if each.row == base or base_of(each.row) != base or len(each.errors) == len(each.right):
            continue
        found = Pairs.count(ours.right, each.right)
        p = f"{found.p:.2g}" if found.p >= 1e-4 else "< 0.0001"
        lines.append(
            f"| {each.row.by}, {each.row.name} | {found.wins} | {found.losses} "
            f"| {found.points:+.1f} | {p} | {each.generated / ours.generated:.2f} |"
        )
    return "\n".join(lines)


def refusals(measured: Iterable[Measured]) -> str:
    lines = [
        f"{each.row.key}: {len(each.errors)} of {len(each.right)} failed: {each.errors[0]}"
        for each in measured
        if each.errors
    ]
    return "\n".join(lines)
