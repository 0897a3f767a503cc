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
    ValidationInfo,
    model_validator,
)

from stepback_client.batch import json_lines
from stepback_core.errors import InvalidInput
from stepback_core.trace import Grammar
from stepback_core.validation import every_error
from stepback_training.data.control_texts import control_in
from stepback_training.generators import is_test_input

SPLIT_RULE = "test prompts: first byte of SHA-256 over traces:PROMPT below 26 (about 10 %)"
_MOST_REPORTED = 20
PLAIN_PROMPTS = (
    "write what a user would type and nothing around it; the checkpoint's own prompt frame puts it "
    "into the model's chat template, in training as in /solve"
)
"""Advice for prompts of a chat model that were rendered already."""


def _is_step(step: str, info: ValidationInfo) -> str:
    if not step.strip():
        raise ValueError("a step must not be empty")
    grammar = _grammar(info)
    text = grammar.reserved_in_step(step)
    if text == grammar.separator:
        raise ValueError(
            f"a step must not contain {text!r}, which closes a step; for steps of several lines "
            r'name another text under [data] in the recipe, as separator = "\n\n"'
        )
    if text is not None:
        raise ValueError(f"a step must not contain {text!r}, which the trace grammar uses")
    if control := control_in(step):
        raise ValueError(
            f"a step must not contain {control!r}: write the text between control tokens alone; "
            "training puts the model's own end after the last step"
        )
    return step


def _is_prompt(prompt: str, info: ValidationInfo) -> str:
    text = _grammar(info).reserved_in_prompt(prompt)
    if text is not None:
        raise ValueError(f"a prompt must not contain {text!r}, which the trace grammar uses")
    if control := control_in(prompt):
        raise ValueError(f"a prompt must not contain {control!r}: {PLAIN_PROMPTS}")
    return prompt


def _grammar(info: ValidationInfo) -> Grammar:
    return info.context or Grammar()


_Step = Annotated[str, AfterValidator(_is_step)]


class Trace(BaseModel):
    """One line of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    prompt: Annotated[str, AfterValidator(_is_prompt)] = Field(min_length=1)
    steps: list[_Step] = Field(min_length=1)
    wrong_step: _Step | None = None
    wrong_after: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _check_wrong_after(self) -> Self:
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
    """Traces read from files."""

    training: list[Trace]
    held_out: int
    """Number of traces that the split keeps out of training."""


def read_traces(files: Sequence[Path], grammar: Grammar | None = None) -> Traces:
    """Read every line of the files. Raises InvalidInput with the first errors of them all."""
    errors: list[str] = []
    found: list[tuple[str, Trace]] = []
    for file in files:
        try:
            for where, line in _lines(file):
                try:
                    found.append((where, Trace.model_validate_json(line, context=grammar)))
                except ValidationError as error:
                    # All lines are read before anything is said: a file is mended in one go.
                    errors += [f"{where}: {one}" for one in every_error(error, whole="the line")]
        except InvalidInput as error:
            errors.append(str(error))
    errors += _conflicts(found)
    if not found and not errors:
        errors.append(f"{', '.join(map(str, files))}: there are no traces")
    if errors:
        rest = len(errors) - _MOST_REPORTED
        more = [f"... and {rest} more"] if rest > 0 else []
        raise InvalidInput("\n".join(["the traces have errors:", *errors[:_MOST_REPORTED], *more]))
    training = [trace for _, trace in found if not is_held_out(trace.prompt)]
    if not training:
        raise InvalidInput(f"all {len(found)} traces belong to the test split: add more")
    return Traces(training, len(found) - len(training))


def is_held_out(prompt: str) -> bool:
    """Tell whether a prompt belongs to the test split."""
    return is_test_input(f"traces:{prompt}")


def _lines(file: Path) -> Iterator[tuple[str, bytes]]:
    """Place and content of each line; empty lines are left out. Raises InvalidInput."""
    try:
        for number, line in enumerate(json_lines(file), start=1):
            if text := line.strip():
                yield f"{file}:{number}", text
    except OSError as error:
        raise InvalidInput(f"{file}: cannot be read ({error.strerror})") from error


def _conflicts(found: Sequence[tuple[str, Trace]]) -> list[str]:
    """Wrong steps that are right ones elsewhere: after the same prompt and the same steps."""
    # Prompts without a wrong step cannot conflict, and are most of a file.
    asked = {trace.prompt for _, trace in found if trace.wrong_step is not None}
    # One number a prefix: to keep the prefixes would take memory by the square of the steps.
    right: dict[int, int] = {}
    for index, (_, trace) in enumerate(found):
        if trace.prompt in asked:
            for prefix in _prefix_hashes(trace.prompt, trace.steps):
                right.setdefault(prefix, index)
    conflicts: list[str] = []
    for where, trace in found:
        if trace.wrong_step is not None:
            path = [*trace.right_prefix, trace.wrong_step]
            *_, last = _prefix_hashes(trace.prompt, path)
            there, other = found[right[last]] if last in right else ("", None)
            # Compared in full: two prefixes may have one hash.
            if other is not None and other.steps[: len(path)] == path:
                conflicts.append(f"{where}: wrong_step: {there} has it as the right step here")
    return conflicts


def _prefix_hashes(prompt: str, steps: Sequence[str]) -> Iterator[int]:
    value = hash(prompt)
    for step in steps:
        value = hash((value, step))
        yield value
