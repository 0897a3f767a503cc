"""Messages to a scorer and back, in Stepback's own protocol. Pure.

{"task", "problem", "prompt", "candidates": [{"id", "text", "steps", "final"}]}
{"verdicts": [{"id", "score", "ok", "reason"}]}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stepback_core.validation import first_error

_LONGEST_REASON = 200

R = TypeVar("R", bound=BaseModel)
Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class ScorerError(Exception):
    """A scorer that gave no usable answer. `outcome` is one word for the metrics."""

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.outcome, str(self)), self.__dict__


@dataclass(frozen=True, slots=True)
class Question:
    """The problem that candidates are to be judged for."""

    prompt: str
    """The prompt as the model reads it, before framing."""
    task: str | None = None
    problem: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A text to be judged."""

    id: str
    text: str
    steps: Sequence[str]
    final: bool
    """True if it has reached its end; else it is the beginning of an answer."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """The opinion of a scorer on one candidate."""

    score: float
    """0 to 1, the more the better."""
    ok: bool | None = None
    """True if the answer is right; None if the scorer does not judge that."""
    reason: str | None = None

    def with_threshold(self, accept: float | None) -> "Opinion":
        """Judge by the score where the scorer gave no judgement of its own."""
        if self.ok is not None or accept is None:
            return self
        return Opinion(self.score, self.score >= accept, self.reason)


class _Reply(BaseModel):
    """Unknown fields are ignored: a scorer may say more than is asked."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Verdict(_Reply):
    id: str
    score: Score
    ok: bool | None = None
    reason: str | None = None


class _Verdicts(_Reply):
    verdicts: list[_Verdict]


def body_of(question: Question, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Write the body of one call."""
    return {
        "task": question.task,
        "problem": question.problem,
        "prompt": question.prompt,
        "candidates": [
            {"id": each.id, "text": each.text, "steps": list(each.steps), "final": each.final}
            for each in candidates
        ],
    }


def read_verdicts(content: bytes) -> dict[str, Opinion]:
    """Read the answer to one call. Raises ScorerError."""
    reply = read_as(_Verdicts, content)
    opinions = {
        each.id: Opinion(each.score, each.ok, shortened(each.reason)) for each in reply.verdicts
    }
    if len(opinions) < len(reply.verdicts):
        raise malformed("verdicts: an id stands twice")
    return opinions


def read_as(kind: type[R], content: bytes) -> R:
    """Read JSON of a known form. Raises ScorerError, which repeats nothing of the content."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise malformed(first_error(error, whole="the body")) from None


def malformed(message: str) -> ScorerError:
    """Return the error for an answer of another form."""
    return ScorerError("malformed", f"its answer cannot be read: {message}")


def shortened(reason: str | None) -> str | None:
    """A reason in one line that a caller may be shown."""
    if reason is None:
        return None
    line = "".join(char if char.isprintable() else " " for char in reason)
    return line[:_LONGEST_REASON]
