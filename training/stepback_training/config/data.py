"""`[data]`: what `stepback data` writes."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, JsonValue, ValidationError, model_validator

from stepback_core.trace import Grammar
from stepback_core.validation import first_error
from stepback_training.generators import GENERATORS, ErrorKind, Generator

_Count = Annotated[int, Field(ge=1, le=16)]
_Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]

TRACES = "traces"
"""Stand-in for a task's name: traces from files."""


class Source(BaseModel, extra="forbid", frozen=True):
    """Source of samples: a task's generator, or traces of the user's own."""

    name: str
    """A task, or `traces`."""
    share: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Share of the samples, relative to the other sources' shares."""
    options: dict[str, JsonValue] = {}
    """Options of the task's generator; the task documents them."""
    files: list[str] = []
    """JSONL files of `traces`, relative to the working directory."""

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        if self.name not in (*GENERATORS, TRACES):
            known = ", ".join((*GENERATORS, TRACES))
            raise ValueError(
                f"unknown task {self.name!r}; known: {known}; a plug-in's: set STEPBACK_TASKS"
            )
        if (self.name == TRACES) != bool(self.files):
            raise ValueError(f"files: {TRACES} needs them, and no other task has any")
        if self.name == TRACES and self.options:
            raise ValueError(f"options: {TRACES} has none")
        try:
            if self.name != TRACES:
                GENERATORS[self.name].with_options(self.options)
        except ValidationError as error:
            raise ValueError(f"options: {first_error(error, whole='all')}") from error
        return self

    @property
    def task(self) -> Generator[Any] | None:
        """The task with the options of this source; None for traces."""
        return None if self.name == TRACES else GENERATORS[self.name].with_options(self.options)


class OwnErrors(BaseModel, extra="forbid", frozen=True):
    """Wrong steps that a model made itself, as `stepback errors` writes them."""

    file: str
    """JSONL, relative to the working directory."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Share of the samples that backtrack; the others end in invented wrong steps."""


class DataRecipe(BaseModel, extra="forbid", frozen=True):
    """The samples that `stepback data` writes.

    A single source may be written without a table of its own, as `task`, `options` and `files`.
    """

    tasks: list[Source] = Field(default=[Source(name="countdown")], min_length=1)
    samples: int | None = Field(default=None, gt=0)
    """Left out with traces alone: every trace once, and once more up to its wrong step where it has
    one, whatever `first_steps` and a `backtrack_share` above 0 are."""
    seed: int = 0
    backtrack_share: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of the samples that end in a wrong step and the marker; 0.5 is the paper's 1 : 1."""
    wrong_paths: float | None = Field(default=None, ge=0, le=64)
    """Instead of `backtrack_share`: samples that backtrack beside each right path, of the same
    problem, on average. Where prompts are shared in training they cost little."""
    errors: dict[ErrorKind, float] = {
        ErrorKind.EXPLORATION: 1.0,
        ErrorKind.COMPUTATIONAL: 2.0,
        ErrorKind.RULE_VIOLATION: 2.0,
    }
    """Relative weights of the kinds of wrong step; the paper's are 1 : 2 : 2."""
    paths: Literal["uniform", "canonical", "plainest"] = "uniform"
    """Choice among a problem's correct paths. `uniform`: any, with equal chance. `canonical`: of
    paths with the same steps in another order, only the task's first. `plainest`: always the task's
    first of all."""
    first_steps: float = Field(default=0.0, ge=0, lt=1)
    """Share of the right paths of several steps that stop after the first, with no end. Where the
    first step is the hard one, that is more problems in as many tokens."""
    wrong_steps: dict[_Count, _Weight] = Field(default={1: 1.0}, min_length=1)
    """Numbers of wrong steps before the marker, and their weights relative to each other. The
    paper's is one. Each further step believes the claim of the one before."""
    false_claims: float = Field(default=0.0, ge=0, le=1)
    """Share of the invented wrong paths that end in a step which falsely claims the goal.

    It follows a right prefix or, where the goal is too far for that, an unnoticed dead end.
    Neither `errors` nor `wrong_steps` weighs these; Sudoku has none."""
    separator: str = Field(default="\n", min_length=1)
    """Closes every step. Steps of several lines need another than a line's end, such as two."""
    own_errors: OwnErrors | None = None
    """Wrong steps of a model's own, instead of invented ones or mixed with them. A task without any
    in the file has invented ones alone."""

    def _wants_errors_of(self, task: Generator[Any]) -> bool:
        return any(self.errors.get(kind, 0) > 0 for kind in task.error_kinds)

    @property
    def names(self) -> list[str]:
        """The names of the tasks, each once; traces are none."""
        return list(dict.fromkeys(source.name for source in self.tasks if source.task))

    @model_validator(mode="before")
    @classmethod
    def _in_one_form(cls, fields: Any) -> Any:
        """`task`, `options` and `files` become the only entry of `tasks`."""
        if not isinstance(fields, dict):
            return fields
        alone = [name for name in ("task", "options", "files") if name in fields]
        if not alone:
            return fields
        if "tasks" in fields:
            raise ValueError(f"tasks: give these or {', '.join(alone)}, not both")
        rest = dict(fields)
        source = {name: rest.pop(name) for name in alone}
        return rest | {"tasks": [{"name": source.pop("task", "countdown")} | source]}

    @model_validator(mode="after")
    def _separator_is_apart(self) -> Self:
        try:
            Grammar(separator=self.separator)
        except ValidationError as error:
            raise ValueError(f"separator: {first_error(error, whole='it')}") from error
        return self

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        if self.samples is None and any(source.task for source in self.tasks):
            raise ValueError("samples: say how many; a task's problems have no end")
        if any(weight < 0 for weight in self.errors.values()):
            raise ValueError("errors: weights must not be negative")
        if self.backtrack_share > 0 and not sum(self.errors.values()) > 0:
            raise ValueError("errors: at least one weight must be positive")
        if not sum(self.wrong_steps.values()) > 0:
            raise ValueError("wrong_steps: at least one weight must be positive")
        if self.own_errors and not self.names:
            raise ValueError("own_errors: there is no task to judge them; traces bring their own")
        for task in (source.task for source in self.tasks):
            if task and self.backtrack_share > 0 and not self._wants_errors_of(task):
                kinds = ", ".join(task.error_kinds)
                raise ValueError(f"errors: {task.name} has only {kinds}; give one of them a weight")
        return self
