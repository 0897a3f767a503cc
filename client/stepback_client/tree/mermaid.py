"""The tree as a Mermaid flowchart, for Markdown that renders such."""

from operator import add

from stepback_client.tree.layout import Branch, Fold, Mark, Outline, tally
from stepback_client.tree.text import SIGNS, one_line, times

_CLASSES = {
    Mark.VERIFIED: "fill:#dafbe1,stroke:#1a7f37,color:#0b3d1a",
    Mark.ANSWER: "fill:#ddf4ff,stroke:#0969da,color:#0a3069",
    Mark.REFUSED: "fill:#fff8c5,stroke:#9a6700,color:#4d2d00",
    Mark.BACKTRACK: "fill:#ffebe9,stroke:#cf222e,color:#82071e",
    Mark.ILLEGAL: "fill:#fbefff,stroke:#8250df,color:#3e1f79",
    Mark.UNFINISHED: "fill:#f6f8fa,stroke:#8c959f,color:#57606a",
}
_ENTITIES = {char: f"#{ord(char)};" for char in "#&<>\"'`\\[](){}|"}


def render(outline: Outline, caption: str) -> str:
    """The flowchart's source; an edge says how many steps were kept."""
    lines = ["flowchart LR", f'  n0(["{_escape(caption)}"])']
    for number, row in enumerate(outline.rows):
        lines += _branch(row.item) if isinstance(row.item, Branch) else _fold(row.item, number)
    lines += [f"  classDef {_name(mark)} {style}" for mark, style in _CLASSES.items()]
    lines.append("  classDef chosen stroke-width:3px")
    return "\n".join(lines) + "\n"


def _branch(branch: Branch) -> list[str]:
    steps = [_escape(step) for step in branch.steps]
    if steps and branch.struck is not None:
        steps[-1] = f"<s>{steps[-1]}</s>"
    steps = list(map(add, steps, branch.doubts))
    label = "<br/>".join([f"{SIGNS[branch.mark]} {branch.id} {times(branch)}".strip(), *steps])
    lines = [f'  n{branch.id}["{label}"]:::{_name(branch.mark)}', _edge(branch, f"n{branch.id}")]
    return [*lines, f"  class n{branch.id} chosen"] if branch.chosen else lines


def _fold(fold: Fold, number: int) -> list[str]:
    name = f"more{number}"
    return [f'  {name}(["+{fold.count} more<br/>{tally(fold.marks)}"])', _edge(fold, name)]


def _edge(item: Branch | Fold, name: str) -> str:
    kept = f'|"{item.first} kept"|' if item.first and isinstance(item, Branch) else ""
    return f"  n{item.owner} -->{kept} {name}"


def _name(mark: Mark) -> str:
    return mark.value.replace(" ", "_")


def _escape(text: str) -> str:
    return "".join(_ENTITIES.get(char, char) for char in one_line(text))
