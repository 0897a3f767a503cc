"""The Python client of a Stepback controller.

from stepback_client import Client, CountdownProblem

with Client() as client:
    result = client.solve(CountdownProblem(numbers=[4, 16, 25, 82], target=95))
"""

from stepback_client.async_client import AsyncClient
from stepback_client.base import Retry
from stepback_client.client import Client
from stepback_client.errors import (
    ApiError,
    AuthenticationError,
    InvalidRequest,
    NotFound,
    Overloaded,
    StepbackError,
    TransportError,
    Unavailable,
)
from stepback_core.events import (
    BacktrackEvent,
    CandidateEvent,
    ProgressEvent,
    ResultEvent,
    StartedEvent,
    StepEvent,
    StruckStep,
    UsageEvent,
)
from stepback_core.schemas import (
    Answer,
    Select,
    SolveResult,
    Status,
    StopReason,
    Strategy,
    TreeNode,
    Usage,
)
from stepback_core.tasks import CountdownProblem, MazeProblem, SudokuProblem

__all__ = [
    "Answer",
    "ApiError",
    "AsyncClient",
    "AuthenticationError",
    "BacktrackEvent",
    "CandidateEvent",
    "Client",
    "CountdownProblem",
    "InvalidRequest",
    "MazeProblem",
    "NotFound",
    "Overloaded",
    "ProgressEvent",
    "ResultEvent",
    "Retry",
    "Select",
    "SolveResult",
    "StartedEvent",
    "Status",
    "StepEvent",
    "StepbackError",
    "StopReason",
    "Strategy",
    "StruckStep",
    "SudokuProblem",
    "TransportError",
    "TreeNode",
    "Unavailable",
    "Usage",
    "UsageEvent",
]
