"""Calls of a checker as JSON, and their answers: what the process of one call does."""

import pickle
from collections.abc import Callable, Hashable, Sequence, Set
from dataclasses import astuple, is_dataclass
from enum import Enum
from hashlib import sha256
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from stepback_core.tasks.base import Checker, Verdict

Fields = dict[str, Any]
Tell = Callable[[list[Any]], None]
"""Function that is handed each verdict of a review at once."""


def describe(checker: Checker[Any]) -> Fields:
    """Return what a process needs to know of a checker that it does not load."""
    kind: Any = type(checker)
    default: Any = Checker
    return {
        "schema": checker.problem_type.model_json_schema(),
        "draws": kind.picture is not default.picture,
        "example": checker.example.model_dump(mode="json"),
        "knows_states": kind.state_key is not default.state_key
        or kind.check_step is not default.check_step,
    }


def answer(checker: Checker[Any], call: Fields, tell: Tell = lambda verdict: None) -> Fields:
    """Return the answer to a call, or pydantic's errors for a problem that is none.

    Verdicts are sent one by one: those before a failure are not lost with it.
    """
    try:
        problem = checker.problem_type.model_validate(call["problem"])
    except ValidationError as error:
        return {"invalid": error.errors(include_url=False, include_context=False)}
    return {"value": _CALLS[call["do"]](checker, problem, call, tell)}


def _read(checker: Checker[Any], problem: BaseModel, call: Fields, tell: Tell) -> Fields:
    shortest: Callable[[Any], list[str]] | None = getattr(checker, "shortest_answer", None)
    return {
        "problem": problem.model_dump(mode="json"),
        "prompt": checker.prompt(problem),
        "shortest": [] if shortest is None else shortest(problem),
    }


def _review(checker: Checker[Any], problem: BaseModel, call: Fields, tell: Tell) -> Fields:
    """Judge many answers and states at once: a call has a price, whatever it does."""
    for steps in call["answers"]:
        tell(_told(checker.check(problem, steps)))
    return {"states": [_key_of(checker.state_key(problem, steps)) for steps in call["states"]]}


def _told(verdict: Verdict) -> list[Any]:
    if not isinstance(cast("object", verdict), Verdict):
        raise TypeError(f"check gave {verdict!r}, which is no Verdict")
    return [verdict.strict, verdict.lax, verdict.reason and str(verdict.reason)]


def _picture(checker: Checker[Any], problem: BaseModel, call: Fields, tell: Tell) -> Fields:
    return {"picture": checker.picture(problem, call["steps"])}


def _method(checker: Checker[Any], problem: BaseModel, call: Fields, tell: Tell) -> object:
    """Call one method by its name."""
    result: object = getattr(checker, call["method"])(problem, *call["arguments"])
    if isinstance(result, Verdict):
        return _told(result)
    return _key_of(cast("Hashable", result)) if call["method"] == "state_key" else result


_CALLS: dict[str, Callable[[Checker[Any], Any, Fields, Tell], object]] = {
    "read": _read,
    "review": _review,
    "picture": _picture,
    "method": _method,
}


def _key_of(state: Hashable | None) -> str | None:
    """Return a text that equal states share, and others do not; None for an illegal one."""
    return None if state is None else sha256(_written(state)).hexdigest()[:32]


def _written(state: object) -> bytes:
    if isinstance(state, Enum):
        return _written((type(state).__qualname__, state.name))
    if state is None or isinstance(state, (bool, int, float, str, bytes)):
        return repr(state).encode()
    if isinstance(state, Sequence):
        return _joined(b"(", [_written(each) for each in cast("Sequence[object]", state)])
    if isinstance(state, Set):
        return _joined(b"{", sorted(_written(each) for each in cast("Set[object]", state)))
    if is_dataclass(state) and not isinstance(state, type):
        return _written((type(state).__qualname__, *astuple(state)))
    # By its content: a repr may be an address, which another fork gives to something else.
    return pickle.dumps(state)


def _joined(kind: bytes, parts: Sequence[bytes]) -> bytes:
    return kind + b"".join(b"%d:%s" % (len(part), part) for part in parts)
