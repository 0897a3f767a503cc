"""Sudokus: the schema that callers write."""

from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
)

from stepback_core.tasks.cells import cell_name
from stepback_core.tasks.sudoku.grid import Grid, conflicts

_Row = Annotated[str, StringConstraints(pattern=r"^[.0-9]+$", max_length=9)]
_SIDES = (4, 9)


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


def _grid(rows: list[str]) -> Grid:
    return tuple(int(digit) for digit in "".join(rows).replace(".", "0"))


def _flaw(rows: list[str]) -> str | None:
    """Return why rows are not a puzzle; None if they are one."""
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
