"""Outcomes as they come: JSON lines that only grow, so that a killed evaluation goes on.

The first line says what is evaluated. Each process that works on it adds a `run` line, and each
outcome is a line of its own, on disk before the next one is written. A line that a kill cut short
is dropped.
"""

import fcntl
import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from stepback_core.tasks import Split
from stepback_training.evaluate.scoring import Outcome

Key = tuple[str, Split, int]
"""A setting's name, the split, and the problem's number in it."""

FORMAT = 1


class JournalError(ValueError):
    """A journal that this evaluation cannot go on with; the message says what to do."""


class Journal:
    """The outcomes of one evaluation, those of earlier processes among them."""

    def __init__(self, path: Path, file: BinaryIO, lines: list[dict[str, Any]]) -> None:
        self.outcomes: dict[Key, Outcome] = {}
        self.runs: list[dict[str, Any]] = []
        self._path = path
        self._file = file
        for number, line in enumerate(lines, start=2):
            self._take(line, number)

    def begin_run(self, run: dict[str, Any]) -> None:
        _append(self._file, {"run": run})
        self.runs.append(run)

    def add(self, key: Key, outcome: Outcome) -> None:
        setting, split, number = key
        line = {"setting": setting, "split": split, "number": number}
        _append(self._file, line | {"outcome": outcome.model_dump(mode="json")})
        self.outcomes[key] = outcome

    def _take(self, line: dict[str, Any], number: int) -> None:
        if "run" in line:
            self.runs.append(line["run"])
            return
        try:
            key = (line["setting"], Split(line["split"]), line["number"])
            self.outcomes[key] = Outcome.model_validate(line["outcome"])
        except (KeyError, ValueError) as error:
            raise JournalError(f"{self._path}, line {number}: not an outcome; move it away") from (
                error
            )


@contextmanager
def opened(path: Path, identity: dict[str, Any]) -> Generator[Journal]:
    """Hold a journal of this identity, a new one or one to go on with.

    Raises JournalError where another process holds it, or where it is of another evaluation.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JournalError(f"{path}: another process is evaluating there") from error
        lines = _read(path, file)
        if lines:
            # As it would read from the file: tuples are lists there.
            _agree(path, lines[0], json.loads(json.dumps(identity)))
        else:
            _append(file, {"format": FORMAT, "identity": identity})
        yield Journal(path, file, lines[1:])


def _append(file: BinaryIO, line: dict[str, Any]) -> None:
    file.write((json.dumps(line, separators=(",", ":")) + "\n").encode())
    file.flush()
    os.fsync(file.fileno())


def _read(path: Path, file: BinaryIO) -> list[dict[str, Any]]:
    """The whole lines; what a kill left of another one is cut off the file."""
    file.seek(0)
    content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    lines: list[dict[str, Any]] = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            lines.append(dict(json.loads(line)))
        except (TypeError, ValueError) as error:
            raise JournalError(f"{path}, line {number}: not a journal's; move it away") from error
    file.truncate(len(whole))
    return lines


def _agree(path: Path, head: dict[str, Any], identity: dict[str, Any]) -> None:
    if head.get("format") != FORMAT or not isinstance(head.get("identity"), dict):
        raise JournalError(f"{path} is no journal of an evaluation that this version writes")
    for part, (begun, now) in _differences(head["identity"], identity):
        raise JournalError(
            f"{path} was begun with another {part} ({begun}, now {now}): go on with that one, "
            "or use another --out"
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
