"""A search's tree, laid out for reading: which branches are shown, in which rows, what is folded.

A branch hangs under the branch that sampled the last step that it kept, since that is where a
reader looks for it. That is not always its parent: one that was rolled back past its own first step
kept nothing but what it had from others.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from stepback_core.schemas import Answer, Outcome, SolveResult, TreeNode

ROOT = 0
DEFAULT_LIMIT = 60
"""Branches that a picture shows before it folds."""
_LEAST_SHOWN = 0.01


class Mark(StrEnum):
    """End of a branch, as a reader sees it."""

    VERIFIED = "verified"
    ANSWER = "answer"
    """An answer whose verdict is not known."""
    REFUSED = "refused"
    BACKTRACK = "rolled back"
    ILLEGAL = "illegal"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One branch and its place in the picture."""

    id: int
    owner: int
    """The branch that it hangs under; ROOT for the prompt."""
    first: int
    """The place of its first own step since the prompt, from 0."""
    steps: tuple[str, ...]
    """Its own steps."""
    mark: Mark
    score: float | None
    answer: Answer | None
    chosen: bool
    """True if it is the search's answer."""
    markers: tuple[float | None, ...] = ()
    """P(marker) after each own step, as far as it is known."""
    twins: tuple[int, ...] = ()
    """Later branches that say just the same and lead nowhere; they are shown with this one."""

    @property
    def struck(self) -> int | None:
        """The place of the step that was taken back; it may be one that was kept."""
        last = self.first + len(self.steps) - 1
        return last if self.mark in (Mark.BACKTRACK, Mark.ILLEGAL) and last >= 0 else None

    @property
    def doubts(self) -> tuple[str, ...]:
        """Mark after each own step, from `markers`."""
        unknown = (None,) * (len(self.steps) - len(self.markers))
        return tuple(map(doubt, [*self.markers, *unknown][: len(self.steps)]))


@dataclass(frozen=True, slots=True)
class Fold:
    """Branches that are counted instead of shown, all those under one owner."""

    owner: int
    first: int
    """The least of their first steps' places."""
    marks: Mapping[Mark, int]

    @property
    def count(self) -> int:
        return sum(self.marks.values())


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the picture."""

    item: Branch | Fold
    rails: tuple[bool, ...]
    """A flag for each row above it, outermost first, and for itself: true if a sibling follows."""


@dataclass(frozen=True, slots=True)
class Outline:
    """The picture's content."""

    rows: tuple[Row, ...]
    marks: Mapping[Mark, int]
    """Count of all branches, those folded included."""

    @classmethod
    def of_result(cls, result: SolveResult, limit: int = DEFAULT_LIMIT) -> "Outline":
        """Raises ValueError where the result has no tree, or what it has is none."""
        if result.tree is None:
            raise ValueError('the result has no tree: ask for it with "tree": true')
        answers = [*result.candidates, *([result.answer] if result.answer else [])]
        return cls.of(result.tree, answers, result.answer, limit)

    @classmethod
    def of(
        cls, nodes: Sequence[TreeNode], answers: Sequence[Answer], chosen: Answer | None, limit: int
    ) -> "Outline":
        """`answers` are what is known of the answers' verdicts; at most `limit` branches are shown.

        Raises ValueError where the nodes are no tree.
        """
        branches = _branches(nodes, answers, chosen)
        marks = Counter(branch.mark for branch in branches.values())
        branches = _without_twins(branches)
        shown = _shown(branches, limit)
        return cls(tuple(_rows(_children(branches, shown))), marks)


def doubt(p_marker: float | None) -> str:
    """P(marker) after a step, as it is shown: nothing below one percent."""
    return "" if p_marker is None or p_marker < _LEAST_SHOWN else f" ({p_marker:.0%})"


def tally(marks: Mapping[Mark, int]) -> str:
    """Tell how many ended how, in words."""
    return ", ".join(f"{marks[mark]} {mark}" for mark in Mark if marks.get(mark))


def _branches(
    nodes: Sequence[TreeNode], answers: Sequence[Answer], chosen: Answer | None
) -> dict[int, Branch]:
    """Every branch by its id, in order of asking."""
    verdicts = {tuple(answer.steps): answer for answer in answers}
    traces: dict[int, tuple[str, ...]] = {ROOT: ()}
    branches: dict[int, Branch] = {}
    wanted = tuple(chosen.steps) if chosen else None
    for node in sorted(nodes, key=lambda node: node.id):
        if node.id == ROOT:
            continue
        if node.parent not in traces or node.id in traces:
            raise ValueError(f"the tree is broken at node {node.id}")
        traces[node.id] = traces[node.parent][: node.kept_steps] + tuple(node.steps)
        is_answer = node.outcome is Outcome.ANSWER
        answer = verdicts.get(traces[node.id]) if is_answer else None
        is_chosen = is_answer and traces[node.id] == wanted
        wanted = None if is_chosen else wanted
        branches[node.id] = Branch(
            id=node.id,
            owner=_owner(branches, node.parent, node.kept_steps),
            first=node.kept_steps,
            steps=tuple(node.steps),
            markers=tuple(node.p_marker),
            mark=_mark(node.outcome, answer),
            score=node.score,
            answer=answer,
            chosen=is_chosen,
        )
    return branches


def _without_twins(branches: Mapping[int, Branch]) -> dict[int, Branch]:
    """The branches, where each stands for its twins."""
    owners = {branch.owner for branch in branches.values()}
    firsts: dict[object, int] = {}
    twins: dict[int, list[int]] = defaultdict(list)
    for branch in sorted(branches.values(), key=lambda each: (each.id not in owners, each.id)):
        said = (branch.owner, branch.first, branch.steps, branch.mark)
        first = firsts.setdefault(said, branch.id)
        if first != branch.id and branch.id not in owners:
            twins[first].append(branch.id)
    gone = {twin for found in twins.values() for twin in found}
    return {
        number: replace(
            branch,
            twins=tuple(twins[number]),
            chosen=branch.chosen or any(branches[twin].chosen for twin in twins[number]),
        )
        for number, branch in branches.items()
        if number not in gone
    }


def _owner(branches: Mapping[int, Branch], parent: int, kept: int) -> int:
    """The branch that sampled step number `kept`, counted from 1."""
    while parent != ROOT and branches[parent].first >= kept:
        parent = branches[parent].owner
    return parent


def _mark(outcome: Outcome | None, answer: Answer | None) -> Mark:
    if outcome is Outcome.BACKTRACK:
        return Mark.BACKTRACK
    if outcome is Outcome.ILLEGAL:
        return Mark.ILLEGAL
    if outcome is not Outcome.ANSWER:
        return Mark.UNFINISHED
    if answer is None or answer.verified is None:
        return Mark.ANSWER
    return Mark.VERIFIED if answer.verified else Mark.REFUSED


def _shown(branches: Mapping[int, Branch], limit: int) -> set[int]:
    """The branches worth showing: the answer first, then verified ones, other answers, those that
    others hang under; each with all that it hangs under itself."""
    owners = {branch.owner for branch in branches.values()}

    def rank(branch: Branch) -> tuple[bool, int, bool, int]:
        worth = [Mark.VERIFIED, Mark.ANSWER, Mark.REFUSED]
        place = worth.index(branch.mark) if branch.mark in worth else len(worth)
        return (not branch.chosen, place, branch.id not in owners, branch.id)

    shown: set[int] = set()
    for branch in sorted(branches.values(), key=rank):
        line: list[int] = []
        at = branch.id
        while at != ROOT and at not in shown:
            line.append(at)
            at = branches[at].owner
        if len(shown) + len(line) <= limit:
            shown.update(line)
    return shown


def _children(branches: Mapping[int, Branch], shown: set[int]) -> dict[int, list[Branch | Fold]]:
    """Children of each shown branch."""
    # Those that keep more come first, and a fold last, so that no line to a later one crosses an
    # earlier one.
    children: dict[int, list[Branch | Fold]] = defaultdict(list)
    hidden: dict[int, list[Branch]] = defaultdict(list)
    for branch in sorted(branches.values(), key=lambda branch: (-branch.first, branch.id)):
        if branch.id in shown:
            children[branch.owner].append(branch)
            continue
        owner = branch.owner
        while owner != ROOT and owner not in shown:
            owner = branches[owner].owner
        hidden[owner].append(branch)
    for owner, folded in hidden.items():
        first = min(item.first for item in [*children[owner], *folded])
        marks = Counter[Mark]()
        for branch in folded:
            marks[branch.mark] += 1 + len(branch.twins)
        children[owner].append(Fold(owner, first, marks))
    return children


def _rows(children: Mapping[int, Sequence[Branch | Fold]]) -> Iterator[Row]:
    """Depth first, without recursion: a chain of steps may be long."""

    def under(owner: int, rails: tuple[bool, ...]) -> list[Row]:
        items = children.get(owner, ())
        return [Row(item, (*rails, i < len(items) - 1)) for i, item in enumerate(items)]

    waiting = under(ROOT, ())[::-1]
    while waiting:
        row = waiting.pop()
        yield row
        if isinstance(row.item, Branch):
            waiting += under(row.item.id, row.rails)[::-1]
