"""Outcomes as they come, one a line of JSONL: what is written is never asked for again."""

import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from stepback_core.validation import first_error


class WrongStep(BaseModel):
    """A step that the search met and the task forbids, after a prefix that leads to the goal."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prefix: list[str]
    step: str


class Outcome(BaseModel):
    """What came of one problem."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    """Of the problem, within its kind."""
    task: str
    problem: dict[str, JsonValue]
    solved: bool
    """Whether the strict checker accepts `steps`."""
    steps: list[str]
    """Of the answer; none where there is no answer."""
    wrong: list[WrongStep] = []
    tokens: int
    """Generated, those of discarded branches included."""


class Ledger:
    """The outcomes of one file, in the order in which they came."""

    def __init__(self, path: Path) -> None:
        """Read what is there. Raises ValueError for a line that is no outcome."""
        self.path = path
        self._outcomes: dict[int, Outcome] = {}
        if path.exists():
            _drop_torn_line(path)
            self._read()

    def _read(self) -> None:
        for number, line in enumerate(self.path.read_bytes().splitlines(), start=1):
            try:
                outcome = Outcome.model_validate_json(line)
            except ValidationError as error:
                what = first_error(error, whole="the line")
                raise ValueError(f"{self.path}:{number}: {what}") from error
            self._outcomes[outcome.number] = outcome

    def __contains__(self, number: int) -> bool:
        return number in self._outcomes

    def add(self, outcome: Outcome) -> None:
        """Write an outcome down; it outlasts a kill of this process."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # One write, so that a kill leaves a line or the beginning of one, never two mixed.
        with self.path.open("ab", buffering=0) as file:
            file.write(outcome.model_dump_json().encode() + b"\n")
        self._outcomes[outcome.number] = outcome

    def of(self, numbers: Iterable[int]) -> list[Outcome]:
        """The outcomes of these numbers, in their order. Raises KeyError for one that lacks."""
        return [self._outcomes[number] for number in numbers]


def _drop_torn_line(path: Path) -> None:
    """Cut off what a kill in the middle of a write has left behind the last whole line."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
