"""The tree as SVG: a row for each branch, a column for each step, as in a railway map.

A branch leaves the row above at the step after which it differs, so that what was taken back and
what was tried instead stand in one column.
"""

import re
from collections.abc import Sequence
from operator import add
from unicodedata import east_asian_width
from xml.etree import ElementTree

from stepback_client.tree.layout import ROOT, Branch, Fold, Mark, Outline, tally
from stepback_client.tree.palette import STYLE
from stepback_client.tree.text import SIGNS, notes

Element = ElementTree.Element

_ROW, _CHIP, _TOP, _LEFT = 30, 22, 92, 74
# Width of a character, in the units of the picture, of the 12 px monospace face.
_CHARACTER = 7.25
# The same of the proportional face of the notes, about.
_NOTE_CHARACTER = 6.2
_PAD, _GAP, _BEND = 9, 34, 8
# Characters of a step; the rest is in the tooltip.
_LONGEST = 26
# What XML 1.0 does not allow at all.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(outline: Outline, caption: str) -> str:
    """A whole SVG document, legible on light and on dark ground."""
    svg = _Picture(outline, caption).draw()
    ElementTree.indent(svg)
    return ElementTree.tostring(svg, encoding="unicode") + "\n"


class _Picture:
    """Positions in the picture. Rows count from 0, columns are the steps' places."""

    def __init__(self, outline: Outline, caption: str) -> None:
        self._outline = outline
        self._row_of = {
            row.item.id: number
            for number, row in enumerate(outline.rows)
            if isinstance(row.item, Branch)
        }
        self._branches = [row.item for row in outline.rows if isinstance(row.item, Branch)]
        self._by_id = {branch.id: branch for branch in self._branches}
        self._x = _columns([row.item for row in outline.rows])
        self._answer = next((each for each in self._branches if each.chosen), None)
        self._way = self._to_the_answer()
        ends = (self._right_end(row.item) for row in outline.rows)
        self._width = max(640.0, 60 + 9 * len(caption), 24 + max(ends, default=0.0))
        self._caption = caption

    def draw(self) -> Element:
        height = _TOP + max(len(self._outline.rows), 1) * _ROW + 22
        svg = _canvas(self._width, height, self._caption, self._outline)
        _text(svg, 24, 34, self._caption, "caption")
        self._legend(svg)
        self._band(svg)
        lines = _add(svg, "g", {"class": "lines"})
        # The way to the answer last, above all other lines.
        rows = sorted(enumerate(self._outline.rows), key=lambda row: self._leads(row[1].item))
        for number, row in rows:
            self._join(lines, row.item, number)
        _add(svg, "circle", {"cx": _n(_LEFT - 14), "cy": _n(_TOP - 12), "r": "5", "class": "root"})
        for number, row in enumerate(self._outline.rows):
            self._item(svg, row.item, number)
        return svg

    def _legend(self, svg: Element) -> None:
        x = 24.0
        for mark in Mark:
            if count := self._outline.marks.get(mark):
                label = f"{count} {mark}"
                _badge(svg, x + 8, 57, mark)
                _text(svg, x + 21, 61, label, "note")
                x += 40 + _NOTE_CHARACTER * len(label)

    def _join(self, lines: Element, item: Branch | Fold, number: int) -> None:
        """The line from the step after which a branch differs to its first own step."""
        gutter = self._gutter(item.first)
        start = _TOP - 12.0
        if item.owner != ROOT:
            start = self._y(self._row_of[item.owner])
            owner = self._by_id[item.owner]
            edge = self._right_edge(owner, item.first - 1)
            _add(lines, "path", {"d": f"M{_n(edge)} {_n(start)}H{_n(gutter)}"})
        y = self._y(number)
        d = (
            f"M{_n(gutter)} {_n(start)}V{_n(y - _BEND)}"
            f"Q{_n(gutter)} {_n(y)} {_n(gutter + _BEND)} {_n(y)}H{_n(self._x[item.first])}"
        )
        _add(lines, "path", {"d": d} | self._way_style(item))

    def _to_the_answer(self) -> set[int]:
        """The branches that the answer hangs under, and its own."""
        branch = self._answer
        way: set[int] = set()
        while branch is not None:
            way.add(branch.id)
            branch = self._by_id.get(branch.owner)
        return way

    def _way_style(self, item: Branch | Fold) -> dict[str, str]:
        if self._answer is None or not self._leads(item):
            return {}
        return {"class": f"way {self._answer.mark}"}

    def _leads(self, item: Branch | Fold) -> bool:
        return isinstance(item, Branch) and item.id in self._way

    def _item(self, svg: Element, item: Branch | Fold, number: int) -> None:
        group = _add(svg, "g", {"class": "row"})
        if isinstance(item, Fold):
            _text(group, self._x[item.first] + 6, self._y(number) + 4, _note(item), "fold")
            return
        _add(group, "title").text = _clean(_tooltip(item))
        y = self._y(number)
        _text(group, 40, y + 4, str(item.id), "id")
        self._steps(group, item, y)
        self._end(group, item, y)

    def _band(self, svg: Element) -> None:
        """Draw the coloured band under the answer's row."""
        if self._answer is not None:
            y = self._y(self._row_of[self._answer.id]) - 14
            box = {"x": "8", "y": _n(y), "width": _n(self._width - 16), "height": "28"}
            _add(svg, "rect", box | {"rx": "6", "class": f"band {self._answer.mark}"})

    def _steps(self, group: Element, branch: Branch, y: float) -> None:
        for place, step in enumerate(branch.steps, branch.first):
            x, text = self._x[place], _short(step)
            is_struck = place == branch.struck
            width = _width(text) + 2 * _PAD
            style = "chip struck" if is_struck else "chip"
            if place > branch.first:
                edge = self._right_edge(branch, place - 1)
                _add(group, "path", {"d": f"M{_n(edge)} {_n(y)}H{_n(x)}", "class": "track"})
            box = {"x": _n(x), "y": _n(y - _CHIP / 2), "width": _n(width), "height": str(_CHIP)}
            _add(group, "rect", box | {"rx": "6", "class": style})
            _text(group, x + _PAD, y + 4, text, "step struck" if is_struck else "step")

    def _end(self, group: Element, branch: Branch, y: float) -> None:
        """Tell how it ended: the sign, then the reason and the score."""
        x = self._sign_x(branch)
        _badge(group, x, y, branch.mark)
        _text(group, x + 15, y + 4, _note(branch), "note")

    def _sign_x(self, branch: Branch) -> float:
        if not branch.steps:
            return self._x[branch.first] + 9
        return self._right_edge(branch, branch.first + len(branch.steps) - 1) + 18

    def _right_end(self, item: Branch | Fold) -> float:
        start = self._sign_x(item) + 15 if isinstance(item, Branch) else self._x[item.first] + 6
        return start + _NOTE_CHARACTER * len(_note(item))

    def _right_edge(self, branch: Branch, place: int) -> float:
        own = place - branch.first
        if not 0 <= own < len(branch.steps):
            return self._gutter(branch.first)
        return self._x[place] + _width(_short(branch.steps[own])) + 2 * _PAD

    def _gutter(self, place: int) -> float:
        return self._x[place] - 14

    def _y(self, row: int) -> float:
        return _TOP + 18 + row * _ROW


def _columns(items: Sequence[Branch | Fold]) -> list[float]:
    """Left edges of the columns, and the right edge; a column is as wide as its widest step."""
    tracks = [(item.first, item.steps if isinstance(item, Branch) else ()) for item in items]
    widths = [0.0] * max((first + len(steps) for first, steps in tracks), default=0)
    for first, steps in tracks:
        for place, step in enumerate(steps, first):
            widths[place] = max(widths[place], _width(_short(step)) + 2 * _PAD)
    x = [float(_LEFT)]
    for width in widths:
        x.append(x[-1] + width + _GAP)
    return x


def _canvas(width: float, height: float, caption: str, outline: Outline) -> Element:
    svg = Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "width": _n(width),
            "height": _n(height),
            "viewBox": f"0 0 {_n(width)} {_n(height)}",
            "role": "img",
            "aria-labelledby": "title description",
        },
    )
    _add(svg, "title", {"id": "title"}).text = _clean(caption)
    described = f"The tree of a search, {sum(outline.marks.values())} branches: "
    _add(svg, "desc", {"id": "description"}).text = described + (tally(outline.marks) or "none")
    _add(svg, "style").text = STYLE
    _add(svg, "rect", {"width": "100%", "height": "100%", "class": "ground"})
    return svg


def _badge(parent: Element, x: float, y: float, mark: Mark) -> None:
    style = mark.value.replace(" ", "-")
    _add(parent, "circle", {"cx": _n(x), "cy": _n(y), "r": "8", "class": f"badge {style}"})
    sign = _add(parent, "text", {"x": _n(x), "y": _n(y + 3.6), "class": f"sign {style}"})
    sign.text = SIGNS[mark]


def _note(item: Branch | Fold) -> str:
    if isinstance(item, Fold):
        return f"+{item.count} more: {tally(item.marks)}"
    score = [f"{item.score:.2f}"] if item.score is not None else []
    return " · ".join([*notes(item), *score])


def _tooltip(branch: Branch) -> str:
    head = f"Branch {branch.id}, {branch.mark}"
    return "\n".join(
        [f"{head}, after {branch.first} kept steps", *map(add, branch.steps, branch.doubts)]
    )


def _short(text: str) -> str:
    text = _clean(" ".join(text.split()))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _width(text: str) -> float:
    return _CHARACTER * sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


def _text(parent: Element, x: float, y: float, text: str, style: str) -> None:
    _add(parent, "text", {"x": _n(x), "y": _n(y), "class": style}).text = _clean(text)


def _add(parent: Element, tag: str, attributes: dict[str, str] | None = None) -> Element:
    return ElementTree.SubElement(parent, tag, attributes or {})


def _n(number: float) -> str:
    """A coordinate, short."""
    return f"{number:.1f}".rstrip("0").rstrip(".")
