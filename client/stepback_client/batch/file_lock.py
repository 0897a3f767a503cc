"""The lock of a file that one process writes, on Unix and on Windows."""

import importlib
import os
from typing import Any, BinaryIO

# Windows locks bytes and keeps others from reading them: one far behind any content.
_FAR = 1 << 40


def lock(file: BinaryIO) -> None:
    """Hold a file until it is closed. Raises BlockingIOError where another process does."""
    try:
        # By name: a type checker knows each module on its own system alone.
        fcntl: Any = importlib.import_module("fcntl")
    except ModuleNotFoundError:
        _lock_a_byte(file, importlib.import_module("msvcrt"))
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _lock_a_byte(file: BinaryIO, msvcrt: Any) -> None:
    file.seek(_FAR)
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError as error:
        raise BlockingIOError(*error.args) from error
    finally:
        file.seek(0, os.SEEK_END)
