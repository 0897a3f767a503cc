"""The Python client of a Stepback controller.

from stepback_client import Client, CountdownProblem

with Client() as client:
    result = client.solve(CountdownProblem(numbers=[4, 16, 25, 82], target=95))
"""

from stepback_client.async_client import AsyncClient
from stepback_client.client import Client
from stepback_client.connection import DEFAULT_TIMEOUT, DEFAULT_URL
from stepback_client.environment import api_key, own_headers, server_url
from stepback_client.errors import (
    ApiError,
    AuthenticationError,
    BadSetting,
    InvalidKey,
    InvalidRequest,
    NotFound,
    Overloaded,
    StepbackError,
    TransportError,
    Unavailable,
)
from stepback_client.request import Problem, SolveOptions, solve_body
from stepback_client.retry import Retry
from stepback_client.summary import describe
from stepback_core.events import (
    BacktrackEvent,
    CandidateEvent,
    ProgressEvent,
    ResultEvent,
    SearchLimits,
    StartedEvent,
    StepEvent,
    StruckStep,
    UsageEvent,
)
from stepback_core.schemas import (
    Answer,
    ErrorDetail,
    ErrorType,
    Model,
    ModelList,
    Outcome,
    Readiness,
    Reload,
    Rollback,
    Sampling,
    Select,
    SolveResult,
    Status,
    StopReason,
    Strategy,
    TreeNode,
    Usage,
    Version,
)
from stepback_core.tasks import (
    CountdownProblem,
    DeductionProblem,
    KnightsProblem,
    MazeProblem,
    SudokuProblem,
)

__all__ = [
    "DEFAULT_TIMEOUT",
    "DEFAULT_URL",
    "Answer",
    "ApiError",
    "AsyncClient",
    "AuthenticationError",
    "BacktrackEvent",
    "BadSetting",
    "CandidateEvent",
    "Client",
    "CountdownProblem",
    "DeductionProblem",
    "ErrorDetail",
    "ErrorType",
    "InvalidKey",
    "InvalidRequest",
    "KnightsProblem",
    "MazeProblem",
    "Model",
    "ModelList",
    "NotFound",
    "Outcome",
    "Overloaded",
    "Problem",
    "ProgressEvent",
    "Readiness",
    "Reload",
    "ResultEvent",
    "Retry",
    "Rollback",
    "Sampling",
    "SearchLimits",
    "Select",
    "SolveOptions",
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
    "Version",
    "api_key",
    "describe",
    "own_headers",
    "server_url",
    "solve_body",
]
