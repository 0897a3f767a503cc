"""A run's folder: one process at a time, one recipe and one data file for all resumptions."""

import json
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from stepback_client.batch import lock
from stepback_training.atomic_files import can_lock, write_whole
from stepback_training.config import Recipe

WITHOUT_EFFECT = ("checkpoint_every", "report_to")
"""Fields of [train] that change nothing of what is trained."""
# What may change between a run's start and a resumption of it. With a schedule that does not look
# ahead, more or fewer epochs give what a run with them from the start would have given.
_CHANGEABLE = ("epochs", "tokens", *WITHOUT_EFFECT)

# Those that this process holds.
_locks: set[IO[str]] = set()


@contextmanager
def held(run: Path, recipe: Recipe, data: Path) -> Generator[str]:
    """Hold a run's folder; gives the data's SHA-256.

    Raises ValueError where another process holds it, or where it was started with another recipe or
    other data.
    """
    # Before the folder is made. By content: the same file may have been moved, and another one may
    # have its name.
    digest = sha256(data.read_bytes()).hexdigest()
    with locked(run):
        if (path := run / "run.json").exists():
            agree(path, _identity(recipe, digest), _renewed)
        yield digest


def note_start(run: Path, recipe: Recipe, digest: str) -> None:
    """Write down in a run's folder what it trains on; for a start that was not refused.

    A recipe that is refused can so be mended, and started in the same folder.
    """
    agree(run / "run.json", _identity(recipe, digest), _renewed)


@contextmanager
def locked(run: Path) -> Generator[None]:
    """Hold a folder, which is made. Raises ValueError where another process holds it."""
    # Not on Windows, where `stepback data` works and training does not.
    if not can_lock():
        raise ValueError("training needs Linux (or macOS): this system has no locks on files")
    run.mkdir(parents=True, exist_ok=True)
    with (run / "lock").open("w") as file:
        try:
            # The kernel lets go of it when the process ends, however it ends: no stale lock needs
            # mending.
            lock(file)
        except BlockingIOError as error:
            raise ValueError(f"{run}: another process is training there") from error
        _locks.add(file)
        try:
            yield
        finally:
            _locks.remove(file)


def _let_go() -> None:
    """Close the lock's file in a forked child, which makes rows: a lock is held until all who have
    its file are gone, and such a child outlives a killed parent by seconds."""
    for file in _locks:
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _identity(recipe: Recipe, digest: str) -> dict[str, Any]:
    # What is left out here says nothing about a single training.
    plain = recipe.model_dump(mode="json", exclude={"improve", "train"})
    plain["train"] = recipe.train.model_dump(mode="json", exclude={*_CHANGEABLE})
    return {"recipe": plain, "data_sha256": digest}


def _renewed(started: dict[str, Any]) -> dict[str, Any]:
    """An identity as it would be written now: a field that is newer than the run stood at its
    default."""
    return _identity(Recipe.model_validate(started["recipe"]), started["data_sha256"])


def agree(
    path: Path,
    identity: dict[str, Any],
    renew: Callable[[dict[str, Any]], dict[str, Any]] = lambda started: started,
) -> None:
    """Write down what a run is, or raise ValueError where it was started as something else; `renew`
    brings an identity that was written by an older version up to this one."""
    if not path.exists():
        write_whole(path, [json.dumps(identity, indent=2) + "\n"])
        return
    started = renew(json.loads(path.read_text(encoding="utf-8")))
    for part in identity:
        if started[part] != identity[part]:
            raise ValueError(
                f"{path.parent} was started with another {part}; use another --out, or go on with "
                "the one that it was started with"
            )
