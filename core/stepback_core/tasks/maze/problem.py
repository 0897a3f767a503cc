"""Mazes: the schema that callers write."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
)

from stepback_core.tasks.cells import MOST
from stepback_core.tasks.maze.paths import GOAL, OPEN, START, WALL

_LONGEST_ROW = 2 * MOST + 1
EXAMPLE = [
    "#########",
    "#...#...#",
    "###.#.#.#",
    "#.#G..#.#",
    "#.#####.#",
    "#S..#...#",
    "#.###.###",
    "#.......#",
    "#########",
]
_Row = Annotated[str, StringConstraints(pattern=r"^[#.SG]+$", max_length=_LONGEST_ROW)]


class MazeProblem(BaseModel):
    """A maze as it is drawn."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )

    rows: list[_Row] = Field(
        min_length=3,
        max_length=_LONGEST_ROW,
        examples=[EXAMPLE],
    )
    """The drawing, row by row: `#` is wall, `.` is open, `S` the start, `G` the goal.

    Cells lie at the odd rows and columns, counted from 0; between two cells is a wall or a passage.
    At most 26 cells, 53 characters, each way."""

    @field_validator("rows")
    @classmethod
    def _is_a_maze(cls, rows: list[str]) -> list[str]:
        # One flaw at a time, with its place: a drawing that is shifted by one has hundreds.
        flaw = _flaw(rows)
        if flaw is not None:
            raise ValueError(flaw)
        return rows


def _flaw(rows: Sequence[str]) -> str | None:
    """Return why rows are not a maze; None if they are one."""
    height, width = len(rows), len(rows[0])
    text = "".join(rows)
    for number, row in enumerate(rows, start=1):
        if len(row) != width:
            return f"row {number} has {len(row)} characters, the first has {width}"
    if height % 2 == 0 or width % 2 == 0:
        return (
            f"{height} rows of {width} characters; both must be odd: there is a wall on each side"
        )
    for character, meaning in ((START, "start"), (GOAL, "goal")):
        if text.count(character) != 1:
            return f"{text.count(character)} times {character}; a maze has one {meaning}"
    for number, row in enumerate(rows):
        for place, character in enumerate(row):
            expected = _expected(number, place, height, width)
            if character not in expected:
                return (
                    f"row {number + 1}, character {place + 1} is {character!r}, "
                    f"but it must be one of {expected!r} there"
                )
    return None


def _expected(row: int, column: int, height: int, width: int) -> str:
    """The characters that may stand at a place of the drawing."""
    if row % 2 and column % 2:
        return OPEN + START + GOAL
    is_border = row in (0, height - 1) or column in (0, width - 1)
    return WALL if is_border or row % 2 == column % 2 else WALL + OPEN
