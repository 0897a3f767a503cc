"""Traces of the user's own, from JSONL files: how to train on a task without writing code.

    {"prompt": "sort:cab", "steps": ["cab>acb", "acb>abc"]}
    {"prompt": "sort:ba", "steps": ["ba>ab"], "wrong_step": "ba>bb", "wrong_after": 0}

`steps` is a whole right path. `wrong_step` is what somebody might do wrongly after the first
`wrong_after` of these steps. About 10 % of the prompts are kept out of training: those whose
`traces:PROMPT` has a SHA-256 with a first byte below 26.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from stepback_core.tasks import is_test_input
from stepback_core.trace import Grammar
from stepback_core.validation import every_error

SPLIT_RULE = "test prompts: first byte of SHA-256 over traces:PROMPT below 26 (about 10 %)"
_MOST_REPORTED = 20


class TraceError(ValueError):
    """Files that are not traces; the message has one line an error, with file, line and field."""


def _is_step(step: str) -> str:
    if not step.strip():
        raise ValueError("a step must not be empty")
    text = Grammar().reserved_in_step(step)
    if text is not None:
        raise ValueError(f"a step must not contain {text!r}, which the trace grammar uses")
    return step


def _is_prompt(prompt: str) -> str:
    text = Grammar().reserved_in_prompt(prompt)
    if text is not None:
        raise ValueError(f"a prompt must not contain {text!r}, which the trace grammar uses")
    return prompt


_Step = Annotated[str, AfterValidator(_is_step)]


class Trace(BaseModel):
    """One line of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    prompt: Annotated[str, AfterValidator(_is_prompt)] = Field(min_length=1)
    steps: list[_Step] = Field(min_length=1)
    wrong_step: _Step | None = None
    wrong_after: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _knows_where_the_wrong_step_comes(self) -> Self:
        if (self.wrong_step is None) != (self.wrong_after is None):
            raise ValueError("wrong_step and wrong_after: give both or neither")
        if self.wrong_after is not None and self.wrong_after > len(self.steps):
            raise ValueError(f"wrong_after is {self.wrong_after}, of {len(self.steps)} steps")
        return self

    @property
    def right_prefix(self) -> list[str]:
        """The steps before the wrong one; all of them where there is none."""
        return self.steps[: self.wrong_after]


@dataclass(frozen=True, slots=True)
class Traces:
    """What files hold."""

    training: list[Trace]
    held_out: int
    """How many traces the split keeps out of training."""


def read_traces(files: Sequence[Path]) -> Traces:
    """Read every line of the files. Raises TraceError with the first errors of them all."""
    errors: list[str] = []
    found: list[tuple[str, Trace]] = []
    for file in files:
        for where, line in _lines(file):
            try:
                found.append((where, Trace.model_validate_json(line)))
            except ValidationError as error:
                errors += [f"{where}: {one}" for one in every_error(error, whole="the line")]
    errors += _conflicts(found)
    if not found and not errors:
        errors.append(f"{', '.join(map(str, files))}: there are no traces")
    if errors:
        rest = len(errors) - _MOST_REPORTED
        more = [f"... and {rest} more"] if rest > 0 else []
        raise TraceError("\n".join(["the traces have errors:", *errors[:_MOST_REPORTED], *more]))
    training = [trace for _, trace in found if not is_held_out(trace.prompt)]
    if not training:
        raise TraceError(f"all {len(found)} traces belong to the test split: add more")
    return Traces(training, len(found) - len(training))


def is_held_out(prompt: str) -> bool:
    """Whether a prompt belongs to the test split."""
    return is_test_input(f"traces:{prompt}")


def _lines(file: Path) -> Iterator[tuple[str, bytes]]:
    """Where each line is and what it holds; empty lines are left out. Raises TraceError."""
    try:
        with file.open("rb") as opened:
            for number, line in enumerate(opened, start=1):
                if text := line.strip():
                    yield f"{file}:{number}", text
    except OSError as error:
        raise TraceError(f"{file}: cannot be read ({error.strerror})") from error


def _conflicts(found: Sequence[tuple[str, Trace]]) -> list[str]:
    """Wrong steps that are right ones elsewhere: after the same prompt and the same steps."""
    right: dict[tuple[str, tuple[str, ...]], str] = {}
    for where, trace in found:
        for length in range(1, len(trace.steps) + 1):
            right.setdefault((trace.prompt, tuple(trace.steps[:length])), where)
    conflicts: list[str] = []
    for where, trace in found:
        if trace.wrong_step is not None:
            there = right.get((trace.prompt, (*trace.right_prefix, trace.wrong_step)))
            if there is not None:
                conflicts.append(f"{where}: wrong_step: {there} has it as the right step here")
    return conflicts
