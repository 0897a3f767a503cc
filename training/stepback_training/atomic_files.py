"""Files that appear under their name only when they are whole."""

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


def write_whole(path: Path, parts: Iterable[str]) -> None:
    """Write a text, in the place of an older file. A kill leaves the older one, or this one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
