"""Provenance of results: the code's version, and its commit if it runs from a checkout."""

import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict


class Provenance(BaseModel):
    """The code that made a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stepback: str
    commit: str | None
    """The commit; None outside a checkout."""
    dirty: bool | None
    """True if files under version control were changed since; None without a commit."""

    @classmethod
    def here(cls, file: Path = Path(__file__)) -> "Provenance":
        """Version of the package that this file is in."""
        commit, dirty = _commit(file)
        return cls(stepback=_version(), commit=commit, dirty=dirty)


def this_process() -> dict[str, Any]:
    """A journal's record of a process: its start, and its code version."""
    began = datetime.now(UTC).isoformat(timespec="seconds")
    return {"began": began, **Provenance.here().model_dump()}


def _version() -> str:
    try:
        return version("stepback-llm")
    except PackageNotFoundError:
        return "unknown"


def _commit(file: Path) -> tuple[str | None, bool | None]:
    """The commit that a file is of. A file that lies in some other project's checkout, such as an
    environment made there, is not under its version control, and has none."""
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None, None
    commit = _git(file.parent, "rev-parse", "HEAD")
    changed = _git(file.parent, "status", "--porcelain", "--untracked-files=no")
    return commit, None if changed is None else changed != ""


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of git; None if it refuses, or is not installed."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
