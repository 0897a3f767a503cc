"""What both clients share, without I/O: bodies, results, and when to try again."""

import random
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from stepback_client.errors import TransportError, error_for
from stepback_core.schemas import Readiness, Rollback, Sampling, Select, SolveRequest, Strategy
from stepback_core.tasks import TASKS

T = TypeVar("T", bound=BaseModel)

Problem = BaseModel | Mapping[str, Any] | None
"""A task's model, or its fields."""

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT = httpx.Timeout(240.0, connect=5.0)
"""Longer than a server lets a search wait (60 s) and run (120 s), unless it is set otherwise."""
LIMITS = httpx.Limits(max_connections=256, keepalive_expiry=4.0)
"""Idle connections are dropped before the server's 5 s, so that none is reused as it closes."""
_RETRIED = frozenset({429, 503})
LOST = (httpx.NetworkError, httpx.RemoteProtocolError)
"""A connection that was refused or broke, the answer lost with it. A timeout is none: whoever set
it wants to know."""
_KEY = re.compile(r"[!-~]+")


class BadKey(ValueError):
    """An API key that no header can carry. The message does not repeat it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and how patiently 429, 503 and lost connections are tried again.

    A search has no side effects, so one whose engine died on the way is tried again too. One whose
    answer was lost is not paid twice by the controller that searched: each call has an
    Idempotency-Key of its own. A retry that reaches another controller searches again.
    """

    attempts: int = 4
    """Tries in all; 1 never tries again."""
    first_wait: float = 0.25
    """Seconds before the second try; doubled for each further one, with jitter."""
    longest_wait: float = 8.0
    """Seconds; what the doubling comes to at most."""
    patience: float = 60.0
    """Seconds; where the server asks for more, to try again sooner is useless and to wait is the
    caller's to decide: the error is raised at once, and its `retry_after` says when."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError("attempts must be at least 1")

    def call_headers(self) -> dict[str, str]:
        """What one call sends with each of its tries."""
        return {"Idempotency-Key": uuid.uuid4().hex} if self.attempts > 1 else {}

    def wait(self, tried: int, response: httpx.Response | None) -> float | None:
        """Seconds to wait before the next try; None to give up.

        `response` is None where the connection was refused or lost.
        """
        if tried >= self.attempts:
            return None
        if response is not None and response.status_code not in _RETRIED:
            return None
        wait = self.first_wait * 2 ** (tried - 1) * random.uniform(0.75, 1.25)
        told = response.headers.get("Retry-After", "") if response is not None else ""
        asked = float(told) if told.isdigit() else 0.0
        return None if asked > self.patience else max(min(wait, self.longest_wait), asked)


class SolveOptions(TypedDict, total=False):
    """How to search; what is left out is the server's default (see `SolveRequest`)."""

    task: str
    """The task of `problem`; its model's own if left out, and Countdown for bare fields."""
    prompt: str
    """Free text instead of a problem."""
    model: str
    strategy: Strategy | str
    breadth: int
    backtracks: int
    sampling: Sampling | str
    rollback: Rollback | str
    widening: bool
    greedy_first: bool
    ignore_marker: bool
    temperature: float
    seed: int
    select: Select | str
    tokens: int
    """Budget: generated tokens."""
    seconds: float
    """Budget: seconds of searching."""
    candidates: int
    tree: bool


def key_headers(api_key: str | None) -> dict[str, str]:
    """What every request of a client with this key sends. Raises BadKey."""
    if api_key is None:
        return {}
    if not _KEY.fullmatch(api_key):
        raise BadKey("the API key must be printable ASCII without spaces")
    return {"Authorization": f"Bearer {api_key}"}


def solve_body(problem: Problem, options: SolveOptions, *, stream: bool = False) -> dict[str, Any]:
    """The checked body of `POST /solve`. Raises pydantic's ValidationError."""
    fields: dict[str, Any] = dict(options) | ({"stream": True} if stream else {})
    budget = {name: fields.pop(name) for name in ("tokens", "seconds") if name in fields}
    if problem is not None:
        plain = problem.model_dump(mode="json") if isinstance(problem, BaseModel) else dict(problem)
        fields = {"task": _task_of(problem), "problem": plain} | fields
    request = SolveRequest.model_validate(fields | {"budget": budget})
    return request.model_dump(mode="json", exclude_unset=True)


def _task_of(problem: BaseModel | Mapping[str, Any]) -> str:
    """The task whose model a problem is; Countdown for bare fields."""
    return next((n for n, t in TASKS.items() if isinstance(problem, t.problem_type)), "countdown")


def no_answer(method: str, path: str, error: httpx.HTTPError | None) -> TransportError:
    """What is raised where the network gave no answer."""
    return TransportError(f"{method} {path}: {str(error) or type(error).__name__}")


def read_readiness(response: httpx.Response) -> Readiness:
    """Readiness, whether it is yes (200) or no (503)."""
    if response.status_code == 503:
        response = httpx.Response(200, content=response.content, request=response.request)
    return read(response, Readiness)


def read(response: httpx.Response, kind: type[T]) -> T:
    """The typed answer. Raises ApiError, or TransportError for an answer of something else."""
    try:
        return kind.model_validate_json(checked(response).content)
    except ValidationError as error:
        raise TransportError(f"{response.url} gave what is not a Stepback answer") from error


def checked(response: httpx.Response) -> httpx.Response:
    """The answer itself. Raises ApiError where it is an error, which must have been read."""
    if response.is_success:
        return response
    raise error_for(response.status_code, response.content, response.headers)
