"""Parsing of a task's own prompt line into its problem, for callers who can only send text."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from stepback_core.tasks import TASKS
from stepback_core.tasks.cells import Cell, parse_cell
from stepback_core.tasks.knights.statements import read_signs, write_words
from stepback_core.tasks.maze.paths import GOAL, MOVES, OPEN, START, WALL

_COUNTDOWN = re.compile(r"countdown:(\d{1,2}(?:,\d{1,2}){1,5})=(\d{1,3})", re.ASCII)
_MAZE = re.compile(r"maze:([A-Z][a-z])-([A-Z][a-z]):((?:[A-Z][0-9a-f]+)+)", re.ASCII)
_SUDOKU = re.compile(r"sudoku:((?:[A-Z][.0-9]+)+)", re.ASCII)
_DEDUCTION = re.compile(r"deduction: ((?:[A-Za-z ]+\. )+)([A-Za-z ]+\?)", re.ASCII)
_ROW = re.compile(r"[A-Z]([.0-9a-f]+)", re.ASCII)


def read_prompt_line(text: str, tasks: Collection[str]) -> tuple[str, BaseModel] | None:
    """Return the task and the problem whose prompt this is; None for any other text."""
    name, colon, _ = text.partition(":")
    read = _READERS.get(name) if colon and name in tasks else None
    if read is None or (fields := read(text)) is None:
        return None
    task = TASKS[name]
    try:
        problem: BaseModel = task.problem_type.model_validate(fields)
    except ValidationError:
        return None
    # The numbers of Countdown may come in any order: its prompt sorts them.
    return (name, problem) if name == "countdown" or task.prompt(problem) == text else None


def _read_countdown(text: str) -> dict[str, Any] | None:
    found = _COUNTDOWN.fullmatch(text)
    if found is None:
        return None
    return {"numbers": [int(number) for number in found[1].split(",")], "target": int(found[2])}


def _read_sudoku(text: str) -> dict[str, Any] | None:
    found = _SUDOKU.fullmatch(text)
    return None if found is None else {"rows": _ROW.findall(found[1])}


def _read_deduction(text: str) -> dict[str, Any] | None:
    found = _DEDUCTION.fullmatch(text)
    if found is None:
        return None
    return {"facts": re.findall(r"[^ .][^.]*\.", found[1]), "question": found[2]}


def _read_knights(text: str) -> dict[str, Any] | None:
    read = [read_signs(each) for each in text.partition(":")[2].split(",")]
    statements = [write_words(each) for each in read if each is not None]
    return {"statements": statements} if len(statements) == len(read) else None


def _read_maze(text: str) -> dict[str, Any] | None:
    found = _MAZE.fullmatch(text)
    if found is None:
        return None
    rows: list[str] = _ROW.findall(found[3])
    drawing = _draw(rows)
    for name, mark in ((found[1], START), (found[2], GOAL)):
        row, column = parse_cell(name)
        if row >= len(rows) or column >= len(rows[0]):
            return None
        drawing[2 * row + 1][2 * column + 1] = mark
    return {"rows": ["".join(line) for line in drawing]}


def _draw(rows: list[str]) -> list[list[str]]:
    """The walls and passages of a maze from the open sides of each cell."""
    width = len(rows[0])
    drawing = [[WALL] * (2 * width + 1) for _ in range(2 * len(rows) + 1)]
    for row, digits in enumerate(rows):
        for column, digit in enumerate(digits[:width]):
            drawing[2 * row + 1][2 * column + 1] = OPEN
            for down, right in _open_sides(int(digit, 16)):
                drawing[2 * row + 1 + down][2 * column + 1 + right] = OPEN
    return drawing


def _open_sides(digit: int) -> list[Cell]:
    return [move for bit, move in enumerate(MOVES.values()) if digit >> bit & 1]


_READERS: Mapping[str, Callable[[str], dict[str, Any] | None]] = {
    "countdown": _read_countdown,
    "deduction": _read_deduction,
    "knights": _read_knights,
    "maze": _read_maze,
    "sudoku": _read_sudoku,
}
