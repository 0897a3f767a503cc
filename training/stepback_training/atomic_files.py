"""Files that appear under their name only when they are whole."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path


def can_lock() -> bool:
    """True if this system has the locks that keep a run's folder to one process (not Windows)."""
    try:
        import fcntl  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ModuleNotFoundError:
        return False
    return True


def refuse_device(path: Path) -> None:
    """Raise OSError for a device or a pipe: to rename a file over /dev/stdout would replace it."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "A device or a pipe: name a file instead", str(path))


def write_whole(path: Path, parts: Iterable[str]) -> None:
    """Write a text, in the place of an older file. A kill leaves the older one, or this one.

    Raises OSError, also for a device or a pipe."""
    refuse_device(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
