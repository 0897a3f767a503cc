"""The models that cross HTTP, by subject. Server and client share these."""

from stepback_core.schemas.base import RequestModel, ResponseModel
from stepback_core.schemas.errors import ErrorBody, ErrorDetail, ErrorType
from stepback_core.schemas.operations import (
    Health,
    Model,
    ModelList,
    Readiness,
    Reload,
    ReloadRequest,
    Version,
)
from stepback_core.schemas.request import (
    VOTES,
    Budget,
    Rollback,
    Sampling,
    Select,
    SolveRequest,
    Strategy,
    selects_of,
)
from stepback_core.schemas.result import (
    Answer,
    Outcome,
    SolveResult,
    Status,
    StopReason,
    TreeNode,
    Usage,
)

__all__ = [
    "VOTES",
    "Answer",
    "Budget",
    "ErrorBody",
    "ErrorDetail",
    "ErrorType",
    "Health",
    "Model",
    "ModelList",
    "Outcome",
    "Readiness",
    "Reload",
    "ReloadRequest",
    "RequestModel",
    "ResponseModel",
    "Rollback",
    "Sampling",
    "Select",
    "SolveRequest",
    "SolveResult",
    "Status",
    "StopReason",
    "Strategy",
    "TreeNode",
    "Usage",
    "Version",
    "selects_of",
]
