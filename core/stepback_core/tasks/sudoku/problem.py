"""What a Sudoku is, as a caller writes it, and how puzzles are drawn for training and tests."""

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from stepback_core.tasks.cells import cell_name
from stepback_core.tasks.sudoku.grid import Grid, conflicts

_Row = Annotated[str, StringConstraints(pattern=r"^[.0-9]+$", max_length=9)]
_SIDES = (4, 9)
_GIVENS = {4: (4, 10), 9: (30, 50)}
# Fewer leave more than one solution or, of 81, take too long to find; more leave too few puzzles.
_POSSIBLE_GIVENS = {4: (4, 12), 9: (24, 70)}


class SudokuProblem(BaseModel):
    """A puzzle as its rows."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )

    rows: list[_Row] = Field(
        min_length=4, max_length=9, examples=[[".1..", "4..1", ".32.", "...."]]
    )
    """Four rows of four, or nine of nine: the digits given, and `.` or `0` for an empty cell."""

    @field_validator("rows")
    @classmethod
    def _is_a_puzzle(cls, rows: list[str]) -> list[str]:
        flaw = _flaw(rows)
        if flaw is not None:
            raise ValueError(flaw)
        return rows

    @property
    def grid(self) -> Grid:
        return _grid(self.rows)


class SudokuOptions(BaseModel):
    """How puzzles are drawn for training and tests. Each has exactly one solution."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Literal[4, 9] = 4
    givens: tuple[int, int] = Field(default_factory=lambda fields: _GIVENS[fields.get("size", 4)])
    """Fewest and most digits given; 4 to 10 of 16, or 30 to 50 of 81, if left out."""
    singles: bool = True
    """Whether naked and hidden singles are enough to solve a puzzle: nobody has to guess."""

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        fewest, most = self.givens
        least, greatest = _POSSIBLE_GIVENS[self.size]
        if not least <= fewest <= most <= greatest:
            raise ValueError(f"givens must be two rising numbers of {least} to {greatest}")
        return self


def _grid(rows: list[str]) -> Grid:
    return tuple(int(digit) for digit in "".join(rows).replace(".", "0"))


def _flaw(rows: list[str]) -> str | None:
    """What keeps rows from being a puzzle; None where they are one."""
    side = len(rows)
    if side not in _SIDES:
        return f"there are {side} rows; a Sudoku has 4 or 9"
    for number, row in enumerate(rows, start=1):
        if len(row) != side:
            return f"row {number} has {len(row)} characters, but there are {side} rows"
    grid = _grid(rows)
    for place, digit in enumerate(grid):
        where = cell_name(divmod(place, side))
        if digit > side:
            return f"cell {where} holds {digit}; the digits are 1 to {side}"
        if digit and conflicts(grid, place, digit):
            return f"cell {where} holds {digit}, which stands in its row, column or box once more"
    return None
