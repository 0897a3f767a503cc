"""A collection on disk: a journal of searched problems, and the file of errors made from it."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from stepback_core.errors import InvalidInput
from stepback_training.atomic_files import write_whole
from stepback_training.collect_errors.first_error import Tally
from stepback_training.data.model_errors import ModelError
from stepback_training.generators import GENERATORS, Split
from stepback_training.sampling.journal import Journal, Key, opened


class CollectionPlan(BaseModel):
    """Settings of a collection. A file belongs to one plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    options: dict[str, JsonValue] = {}
    """Options of the task's generator."""
    samples: int = Field(gt=0, le=1024)
    """Paths a problem."""
    temperature: float = Field(gt=0, le=2, allow_inf_nan=False)
    seed: int
    model: str
    """The served model's name."""

    @property
    def problems(self) -> Iterator[BaseModel]:
        """Endless problems of the training split. Raises pydantic's ValidationError for bad
        options."""
        task = GENERATORS[self.task].with_options(self.options)
        return task.stream(Split.TRAIN, Random(f"errors:{self.seed}"))


class ProblemErrors(BaseModel):
    """Outcome of one problem: how its paths ended, and the wrong steps that may be taught."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tally: Tally
    errors: list[ModelError]
    failure: str | None = None
    """Reason why there are no paths, if the search had no result."""


@dataclass(frozen=True, slots=True)
class Collection:
    """The file of errors and the journal that it is made from."""

    path: Path
    journal: Journal[ProblemErrors]

    def has(self, number: int) -> bool:
        """Tell whether the paths of a problem are judged already."""
        return _key(number) in self.journal.outcomes

    def add(self, number: int, outcome: ProblemErrors) -> None:
        """Keep the outcome of a problem."""
        self.journal.add(_key(number), outcome)

    @property
    def tally(self) -> Tally:
        """Tell how all paths ended."""
        return Tally.total(each.tally for each in self._outcomes)

    @property
    def errors(self) -> list[ModelError]:
        """The different errors, in the order of their problems."""
        found = [error for outcome in self._outcomes for error in outcome.errors]
        return list({error.key: error for error in reversed(found)}.values())[::-1]

    @property
    def failures(self) -> list[str]:
        """Tell why problems have no paths."""
        return [each.failure for each in self._outcomes if each.failure is not None]

    def write(self) -> None:
        """Write the file of errors, as far as the journal goes."""
        write_whole(self.path, (error.model_dump_json() + "\n" for error in self.errors))

    @property
    def _outcomes(self) -> list[ProblemErrors]:
        outcomes = self.journal.outcomes
        return [outcomes[key] for key in sorted(outcomes, key=lambda key: key[2])]


@contextmanager
def open_collection(path: Path, plan: CollectionPlan, digest: str | None) -> Generator[Collection]:
    """Begin a collection, or go on with it; `digest` is of the served weights.

    Raises InvalidInput where the file is not a collection, belongs to another plan or other
    weights, or another process writes it.
    """
    journal = path.with_name(f"{path.name}.journal.jsonl")
    if not journal.exists() and path.exists() and path.stat().st_size:
        raise InvalidInput(f"{path} is there, and is no collection: use another file")
    identity = {"plan": plan.model_dump(mode="json"), "digest": digest}
    with opened(journal, identity, ProblemErrors) as held:
        yield Collection(path, held)


def _key(number: int) -> Key:
    return "errors", Split.TRAIN, number
