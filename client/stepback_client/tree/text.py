"""The tree as lines of text."""

from collections.abc import Iterator
from enum import StrEnum

from stepback_client.tree.layout import Branch, Fold, Mark, Outline, Row, tally

SIGNS = {
    Mark.VERIFIED: "✓",
    Mark.ANSWER: "●",
    Mark.REFUSED: "✗",
    Mark.BACKTRACK: "↩",
    Mark.ILLEGAL: "⊘",
    Mark.UNFINISHED: "…",
}


class Role(StrEnum):
    """Role of a piece of a line; colours follow it."""

    RAIL = "rail"
    STEP = "step"
    STRUCK = "struck"
    NOTE = "note"
    CHOSEN = "chosen"
    VERIFIED = "verified"
    ANSWER = "answer"
    REFUSED = "refused"
    BACKTRACK = "rolled back"
    ILLEGAL = "illegal"
    UNFINISHED = "unfinished"


Line = list[tuple[str, Role]]


def render(outline: Outline, caption: str) -> str:
    """The whole tree; a step that was taken back stands between tildes."""
    body = ["".join(_plain(piece) for piece in line) for line in lines(outline)]
    return "\n".join([caption, *body, legend(outline)]) + "\n"


def lines(outline: Outline) -> Iterator[Line]:
    """A line for each row, in pieces."""
    for row in outline.rows:
        yield [(_rails(row), Role.RAIL), *_item(row.item)]


def legend(outline: Outline) -> str:
    """The signs that occur, with their counts."""
    found = [f"{SIGNS[mark]} {outline.marks[mark]} {mark}" for mark in Mark if outline.marks[mark]]
    if any(any(row.item.doubts) for row in outline.rows if isinstance(row.item, Branch)):
        found.append("(%) P(marker) after the step")
    return "  ".join(found) or "no branches"


def one_line(text: str) -> str:
    """The text without control characters, which would break a line or a terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def pieces(branch: Branch) -> Line:
    """A branch without its rails: its number, its sign, its steps."""
    role = Role.CHOSEN if branch.chosen else Role(branch.mark.value)
    line: Line = [(f"{branch.id} ", Role.NOTE), (f"{SIGNS[branch.mark]} ", role)]
    doubts = branch.doubts
    for place, step in enumerate(branch.steps, branch.first):
        comma = ", " if place > branch.first else ""
        is_struck = place == branch.struck
        line += [(comma, Role.NOTE), (one_line(step), Role.STRUCK if is_struck else Role.STEP)]
        line += [(doubt, Role.NOTE)] if (doubt := doubts[place - branch.first]) else []
    if note := ", ".join(notes(branch)):
        line.append((f"  {note}" if branch.steps else note, Role.NOTE))
    return line


def notes(branch: Branch) -> list[str]:
    """Remark about a branch, next to its steps."""
    found = [times(branch)] if branch.twins else []
    if branch.chosen:
        found.append("the answer")
    if branch.answer and branch.answer.reason:
        found.append(branch.answer.reason.replace("_", " "))
    if branch.struck is not None and not branch.steps:
        found.append(f"takes back step {branch.struck + 1}")
    return found


def times(branch: Branch) -> str:
    """Number of times it was sampled; empty for once."""
    return f"\N{MULTIPLICATION SIGN}{1 + len(branch.twins)}" if branch.twins else ""


def _item(item: Branch | Fold) -> Line:
    if isinstance(item, Branch):
        return pieces(item)
    return [(f"+{item.count} more: {tally(item.marks)}", Role.NOTE)]


def _rails(row: Row) -> str:
    above = "".join("│  " if follows else "   " for follows in row.rails[:-1])
    return above + ("├─ " if row.rails[-1] else "└─ ")


def _plain(piece: tuple[str, Role]) -> str:
    text, role = piece
    return f"~{text}~" if role is Role.STRUCK else text
