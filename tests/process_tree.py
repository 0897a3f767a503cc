"""Processes below a process, as Linux lists them."""

from pathlib import Path


def children(pid: int) -> list[int]:
    """The processes that any thread of a process has started."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for text in lists for child in text.read_text().split()]


def descendants(pid: int) -> list[int]:
    """Its children, theirs, and so on."""
    return [each for child in children(pid) for each in (child, *descendants(child))]


def title(pid: int) -> str:
    """Return what `ps` shows of a process, or nothing where it has gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text() + Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def cores_below(pid: int) -> list[int]:
    """The engine cores that a process has."""
    return [each for each in descendants(pid) if "EngineCore" in title(each)]
