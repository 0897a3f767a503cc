"""A job as a controller holds it, and a handler that answers it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, Self

from stepback_core.events import SolveEvent
from stepback_server.errors import ApiError
from stepback_server.gateway.tenant import Tenant


class State(StrEnum):
    """Status of a job in the database."""

    HELD = "held"
    """A line of an input file that is still being read."""
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    """State with an answer: a success or a refusal."""
    CANCELLED = "cancelled"


OPEN = (State.QUEUED, State.RUNNING)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Cost of an answer."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class JobAnswer:
    """An HTTP answer: its status, its JSON, its cost."""

    status: int
    content: str
    tokens: Tokens = Tokens()

    @classmethod
    def refusal(cls, error: ApiError) -> Self:
        """An error as HTTP answers it."""
        return cls(error.status, error.body.model_dump_json())

    @property
    def is_success(self) -> bool:
        return self.status < 400


@dataclass(frozen=True, slots=True)
class Job:
    """A request that this controller has claimed."""

    number: int
    id: str
    tenant: str
    batch: str | None
    endpoint: str
    body: str


class NotNow(Exception):
    """The handler is overloaded or unavailable: try again after `seconds`. `is_loss`: an engine was
    lost that had begun the job. `is_for_key`: another key's job may well be answered now."""

    def __init__(self, seconds: float, *, is_loss: bool = False, is_for_key: bool = False) -> None:
        super().__init__(f"try again in {seconds} s")
        self.seconds = seconds
        self.is_loss = is_loss
        self.is_for_key = is_for_key

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.seconds,), self.__dict__


Answered = tuple[Job, JobAnswer | NotNow | None]
"""A job with what came of it; None: it was cancelled."""

Report = Callable[[SolveEvent], None]
"""Takes the events of a search as they happen."""


class Handler(Protocol):
    """Answers the body of one request, refusals included."""

    async def __call__(
        self, body: Any, tenant: Tenant, *, is_line: bool, report: Report | None
    ) -> JobAnswer:
        """`is_line`: yield to searches whose callers wait. Raises NotNow."""
        ...
