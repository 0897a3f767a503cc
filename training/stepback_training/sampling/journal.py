"""Outcomes as they come: JSON lines that only grow, so that what was killed goes on.

    {"format": 1, "identity": {...}}       the searches, and the server that they go to
    {"run": {...}}                         a process that works on it
    {"setting": "greedy", "split": "test_new", "number": 0, "outcome": {...}}

Each line is on disk before the next one is written. One that a kill cut short is dropped.
"""

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from stepback_client.batch import GrowingLines, growing
from stepback_core.errors import InvalidInput
from stepback_training.generators import Split

T = TypeVar("T", bound=BaseModel)

Key = tuple[str, Split, int]
"""A setting's name, the split, and the problem's number in it."""

FORMAT = 1


class Journal(Generic[T]):
    """The outcomes of one asking, those of earlier processes among them."""

    def __init__(self, file: GrowingLines, kind: type[T], lines: list[dict[str, Any]]) -> None:
        self.path = file.path
        self.outcomes: dict[Key, T] = {}
        self.runs: list[dict[str, Any]] = []
        self._file = file
        self._kind = kind
        # From 2: the first line of the file is its head.
        for number, line in enumerate(lines, start=2):
            self._take(line, number)

    def begin_run(self, run: dict[str, Any]) -> None:
        self._file.append({"run": run})
        self.runs.append(run)

    def add(self, key: Key, outcome: T) -> None:
        setting, split, number = key
        line = {"setting": setting, "split": split, "number": number}
        self._file.append(line | {"outcome": outcome.model_dump(mode="json")})
        # After the file has it: what is only in memory would be lost with the process.
        self.outcomes[key] = outcome

    def take_back(self) -> None:
        """Drop from the file what this process has added to it."""
        self._file.take_back()

    def _take(self, line: dict[str, Any], number: int) -> None:
        if "run" in line:
            self.runs.append(line["run"])
            return
        try:
            key = (line["setting"], Split(line["split"]), line["number"])
            self.outcomes[key] = self._kind.model_validate(line["outcome"])
        except (KeyError, ValueError) as error:
            raise InvalidInput(f"{self.path}, line {number}: not an outcome; move it away") from (
                error
            )


@contextmanager
def opened(path: Path, identity: dict[str, Any], kind: type[T]) -> Generator[Journal[T]]:
    """Hold a journal of this identity, a new one or one to go on with; `kind` is of its outcomes.

    Raises InvalidInput where another process holds it, or where it was begun as another one.
    """
    with growing(path) as file:
        lines = list(file.read())
        if lines:
            # As it would read from the file: tuples are lists there.
            _agree(path, lines[0], json.loads(json.dumps(identity)))
        else:
            file.begin({"format": FORMAT, "identity": identity})
        yield Journal(file, kind, lines[1:])


def _agree(path: Path, head: dict[str, Any], identity: dict[str, Any]) -> None:
    if head.get("format") != FORMAT or not isinstance(head.get("identity"), dict):
        raise InvalidInput(f"{path} is no journal that this version writes; move it away")
    for part, (begun, now) in _differences(head["identity"], identity):
        raise InvalidInput(
            f"{path} was begun with another {part} ({begun}, now {now}): go on with that one, "
            "or begin another"
        )


def _differences(
    begun: dict[str, Any], now: dict[str, Any], under: str = ""
) -> Generator[tuple[str, tuple[str, str]]]:
    for part in {**begun, **now}:
        one, other = begun.get(part), now.get(part)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{under}{part}.")
        elif one != other:
            yield f"{under}{part}", (_short(one), _short(other))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
