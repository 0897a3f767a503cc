"""JSON lines that only grow, held by one process: what was killed goes on where it was.

Each line is on disk before the next one is written. One that a kill cut short is dropped.
"""

import json
import os
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from stepback_client.batch.file_lock import lock
from stepback_core.errors import InvalidInput


class GrowingLines:
    """The file, open at its end."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self._found = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Give the whole lines, and cut off the torn line of a kill. Raises InvalidInput."""
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            try:
                yield dict(json.loads(line))
            except (TypeError, ValueError) as error:
                message = f"{self.path}, line {number}: not a journal's; move it away"
                raise InvalidInput(message) from error
        self._file.truncate(whole)
        self._found = self._file.seek(0, os.SEEK_END)

    def append(self, line: dict[str, Any]) -> None:
        """Write a line, and return once it is on disk."""
        self._file.write(_written(line))
        self._file.flush()
        os.fsync(self._file.fileno())

    def begin(self, head: dict[str, Any]) -> None:
        """Write the first line of a new file, which `take_back` leaves."""
        self.append(head)
        self._found = self._file.seek(0, os.SEEK_END)

    def take_back(self) -> None:
        """Drop what was appended since the lines were read."""
        self._file.truncate(self._found)
        os.fsync(self._file.fileno())


def take_out(path: Path, is_out: Callable[[dict[str, Any]], bool]) -> int:
    """Take lines out of a file, and return how many. A kill leaves it with all of them or none.
    Raises InvalidInput, and OSError on Windows, which replaces no open file."""
    # Not the link to it.
    path = path.resolve()
    with growing(path) as old:
        kept = path.with_name(f"{path.name}.kept")
        try:
            count = _copy(old.read(), kept, is_out)
            shutil.copymode(path, kept)
            # Under the lock: no other process appends to what is replaced.
            os.replace(kept, path)
        finally:
            kept.unlink(missing_ok=True)
    return count


def _copy(
    lines: Iterable[dict[str, Any]], path: Path, is_out: Callable[[dict[str, Any]], bool]
) -> int:
    count = 0
    with path.open("wb") as file:
        for line in lines:
            if is_out(line):
                count += 1
            else:
                file.write(_written(line))
        file.flush()
        os.fsync(file.fileno())
    return count


def _written(line: dict[str, Any]) -> bytes:
    return (json.dumps(line, separators=(",", ":")) + "\n").encode()


@contextmanager
def growing(path: Path) -> Generator[GrowingLines]:
    """Hold a file, new or to go on with. Raises InvalidInput where another process does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            lock(file)
        except BlockingIOError as error:
            raise InvalidInput(f"{path}: another process is writing there") from error
        yield GrowingLines(path, file)
