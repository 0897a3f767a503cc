"""A search in the terminal while it runs: its tree as it grows, or plain lines for a pipe."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from stepback_client.tree.layout import DEFAULT_LIMIT, Mark, Outline, doubt
from stepback_client.tree.text import SIGNS, Role, legend, lines, one_line
from stepback_core.events import (
    BacktrackEvent,
    CandidateEvent,
    ProgressEvent,
    ResultEvent,
    StartedEvent,
    StepEvent,
    UsageEvent,
)
from stepback_core.schemas import Answer, Outcome, SolveResult, TreeNode

_STYLES = {
    Role.RAIL: "dim",
    Role.STEP: "",
    Role.STRUCK: "red strike",
    Role.NOTE: "dim",
    Role.CHOSEN: "bold green reverse",
    Role.VERIFIED: "bold green",
    Role.ANSWER: "cyan",
    Role.REFUSED: "yellow",
    Role.BACKTRACK: "red",
    Role.ILLEGAL: "red",
    Role.UNFINISHED: "dim",
}
# A search has hundreds of events a second, and a terminal is slow.
_REDRAW_SECONDS = 0.1
# Terminal lines next to the tree.
_OTHER_LINES = 4


@dataclass(slots=True)
class Watched:
    """The tree of the events so far."""

    nodes: dict[int, TreeNode] = field(default_factory=dict[int, TreeNode])
    traces: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    """Every step of a branch as a line shows it."""
    answers: list[Answer] = field(default_factory=list[Answer])
    usage: UsageEvent | None = None
    result: SolveResult | None = None

    def take(self, event: ProgressEvent) -> None:
        match event:
            case StepEvent():
                self._extend(event, event.index, event.text, event.p_marker)
            case BacktrackEvent():
                self._end(event, event.outcome)
                for step in event.struck:
                    self._extend(event, step.index, step.text, None)
            case CandidateEvent():
                self.answers.append(event.answer)
                self._end(event, Outcome.ANSWER, event.answer.score)
            case UsageEvent():
                self.usage = event
            case ResultEvent():
                self.result = event.result
            case StartedEvent():
                pass

    def outline(self, limit: int) -> Outline:
        chosen = self.result.answer if self.result else None
        return Outline.of(list(self.nodes.values()), self.answers, chosen, limit)

    def _extend(
        self, event: StepEvent | BacktrackEvent, index: int, text: str, p_marker: float | None
    ) -> None:
        """Add a step, unless the branch has it: a struck one may have been shown when complete."""
        branch = event.branch
        node = self._node(branch, event.parent, index)
        if index == node.kept_steps + len(node.steps):
            more = {"steps": [*node.steps, text], "p_marker": [*node.p_marker, p_marker]}
            self.nodes[branch] = node.model_copy(update=more)
            self.traces[branch] = [*self.traces[branch], one_line(text) + doubt(p_marker)]

    def _end(
        self,
        event: BacktrackEvent | CandidateEvent,
        outcome: Outcome,
        score: float | None = None,
    ) -> None:
        node = self._node(event.branch, event.parent, event.kept_steps)
        self.nodes[event.branch] = node.model_copy(update={"outcome": outcome, "score": score})

    def _node(self, branch: int, parent: int, kept: int) -> TreeNode:
        if branch not in self.nodes:
            # The root is no branch, and has no line of its own.
            self.traces[branch] = self.traces.get(parent, [])[:kept]
            self.nodes[branch] = TreeNode(
                id=branch, parent=parent, kept_steps=kept, steps=[], outcome=None, score=None
            )
        return self.nodes[branch]


def watch(events: Iterable[ProgressEvent], output: TextIO) -> SolveResult:
    """Show the events as they come, and give the result; raises what the iterator raises."""
    console = Console(file=output, highlight=False)
    watched = Watched()
    if console.is_terminal:
        _draw(events, watched, console)
    else:
        for line in plain_lines(events, watched):
            # Flushed: through a pipe the lines would come at the end otherwise.
            print(line, file=output, flush=True)
    assert watched.result is not None, "a stream that ends without a result raises"
    return watched.result


def _draw(events: Iterable[ProgressEvent], watched: Watched, console: Console) -> None:
    """Redraw the tree in place, and print the whole of it at the end."""
    began = drawn = time.monotonic()
    clock = _Clock(began)
    # Transient: the tree that is redrawn is cut to the terminal, the one that stays is whole.
    with Live(clock, console=console, transient=True, refresh_per_second=8) as live:
        for event in events:
            watched.take(event)
            now = time.monotonic()
            # Totals are sent soon after the last branch, so that no silence begins undrawn.
            if isinstance(event, UsageEvent) or now - drawn > _REDRAW_SECONDS:
                rows = max(1, console.height - _OTHER_LINES)
                clock.usage = watched.usage
                live.update(Group(*_tree(watched.outline(rows)), clock))
                drawn = now
    console.print(*_tree(watched.outline(DEFAULT_LIMIT)), sep="\n", soft_wrap=True)


@dataclass(slots=True)
class _Clock:
    """The line under the tree. It goes on while no event comes."""

    began: float
    usage: UsageEvent | None = None

    def __rich__(self) -> Text:
        tokens = f"  {self.usage.generated_tokens} tokens" if self.usage else ""
        return Text(f"{time.monotonic() - self.began:.1f} s{tokens}", "bold")


def _tree(outline: Outline) -> list[Text]:
    rows = [[(text, _STYLES[role]) for text, role in line] for line in lines(outline)]
    drawn = [Text.assemble(*row, no_wrap=True, overflow="ellipsis") for row in rows]
    return [*drawn, Text(legend(outline), "dim")]


def plain_lines(events: Iterable[ProgressEvent], watched: Watched) -> Iterator[str]:
    """Print a line at the start and one for each branch that ends in an answer or is taken back."""
    for event in events:
        watched.take(event)
        if isinstance(event, StartedEvent):
            limits = f"at most {event.limits.tokens} tokens and {event.limits.seconds:g} s"
            yield f"started {event.id}: {event.model}, {event.strategy}, {limits}"
        elif isinstance(event, BacktrackEvent):
            good = event.struck[0].index if event.struck else 0
            struck = [f"~{one_line(step.text)}~" for step in event.struck]
            mark = Mark.ILLEGAL if event.outcome is Outcome.ILLEGAL else Mark.BACKTRACK
            yield _line(event.branch, mark, [*watched.traces[event.branch][:good], *struck])
        elif isinstance(event, CandidateEvent):
            yield _line(event.branch, _verdict(event.answer), watched.traces[event.branch])


def _line(branch: int, mark: Mark, steps: Sequence[str]) -> str:
    return f"{SIGNS[mark]} {branch}: {', '.join(steps)}"


def _verdict(answer: Answer) -> Mark:
    return {True: Mark.VERIFIED, False: Mark.REFUSED, None: Mark.ANSWER}[answer.verified]
