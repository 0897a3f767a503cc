"""A collection on disk: a file of errors, and beside it whose it is and how far it has got."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from stepback_training.atomic_files import write_whole
from stepback_training.collect_errors.first_error import Tally
from stepback_training.data.model_errors import ModelError, read_model_errors
from stepback_training.generators import GENERATORS, Split


class CollectionError(ValueError):
    """A collection that cannot go on where it was; the message says what to do."""


class Plan(BaseModel):
    """What is asked, of which model. A file belongs to one plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    options: dict[str, JsonValue] = {}
    """Of the task's generator."""
    samples: int = Field(gt=0)
    """Paths a problem."""
    temperature: float = Field(gt=0, le=2, allow_inf_nan=False)
    seed: int
    model: str
    """The served model's name."""

    @property
    def problems(self) -> Iterator[BaseModel]:
        """Of the training split, without end. Raises pydantic's ValidationError for bad options."""
        task = GENERATORS[self.task].with_options(self.options)
        return task.stream(Split.TRAIN, Random(f"errors:{self.seed}"))


class _Progress(BaseModel):
    """Beside the file: what it belongs to, and how much of it is whole."""

    model_config = ConfigDict(extra="forbid")

    plan: Plan
    problems: int = 0
    size: int = 0
    """Bytes of the file."""
    tally: Tally = Tally()


@dataclass(slots=True)
class Collection:
    """The file, open at its end, and what it holds."""

    path: Path
    progress: _Progress
    keys: set[tuple[Any, ...]] = field(default_factory=set[tuple[Any, ...]])

    @classmethod
    def open(cls, path: Path, plan: Plan) -> "Collection":
        """Begin a file, or go on with it. Raises CollectionError where it belongs to another plan,
        and ModelErrorsError where it has been changed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        size = path.stat().st_size if path.exists() else 0
        if not _beside(path).exists():
            if size:
                raise CollectionError(f"{path} is there, and is no collection: use another file")
            begun = cls(path, _Progress(plan=plan))
            begun._say_so()
            return begun
        progress = _Progress.model_validate_json(_beside(path).read_bytes())
        if progress.plan != plan and progress.problems:
            raise CollectionError(
                f"{path} was begun with {progress.plan!r}: go on with that, or use another file"
            )
        if size < progress.size:
            raise CollectionError(f"{path} has been cut: use another file")
        # What a killed process wrote past its last whole problem comes again.
        with path.open("ab") as file:
            file.truncate(progress.size)
        resumed = progress.model_copy(update={"plan": plan})
        return cls(path, resumed, {error.key for error in read_model_errors(path)})

    def add(self, errors: list[ModelError], tally: Tally) -> None:
        """Append what is new of one problem's errors, then say so beside the file."""
        new = [error for error in _distinct(errors) if error.key not in self.keys]
        with self.path.open("ab") as file:
            file.write(b"".join(e.model_dump_json().encode() + b"\n" for e in new))
        self.keys.update(error.key for error in new)
        self.progress.problems += 1
        self.progress.size = self.path.stat().st_size
        self.progress.tally = tally
        self._say_so()

    def _say_so(self) -> None:
        write_whole(_beside(self.path), [self.progress.model_dump_json(indent=2), "\n"])


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".progress.json")


def _distinct(errors: list[ModelError]) -> list[ModelError]:
    return list({error.key: error for error in reversed(errors)}.values())[::-1]
