"""The names that users may rely on. A change here is a change of the interface."""

import ast
import inspect
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import BaseModel

import stepback_client
import stepback_client.batch
from tests.conftest import ROOT


def test_the_client_exports_exactly_this() -> None:
    assert sorted(stepback_client.__all__) == [
        "Answer",
        "ApiError",
        "AsyncClient",
        "AuthenticationError",
        "BacktrackEvent",
        "BadSetting",
        "CandidateEvent",
        "Client",
        "CountdownProblem",
        "DEFAULT_TIMEOUT",
        "DEFAULT_URL",
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
    for name in stepback_client.__all__:
        assert hasattr(stepback_client, name)


PUBLIC_MODULES = {
    module.__name__: set(module.__all__) for module in (stepback_client, stepback_client.batch)
}
PUBLIC_CLASSES = [
    value
    for value in (getattr(stepback_client, name) for name in stepback_client.__all__)
    if isinstance(value, type)
]


@pytest.mark.parametrize("kind", PUBLIC_CLASSES)
def test_whatever_a_signature_or_a_field_mentions_can_be_imported(kind: type) -> None:
    strangers = {one.__name__ for one in _mentioned(kind) if one not in PUBLIC_CLASSES}
    assert not strangers, f"{kind.__name__} mentions {strangers}"


@pytest.mark.parametrize("folder", ["training", "deploy", "client/examples", "docs"])
def test_others_use_the_public_surface_alone(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "stepback_client"
            ):
                assert node.module in PUBLIC_MODULES, f"{path} imports {node.module}"
                inner = {alias.name for alias in node.names} - PUBLIC_MODULES[node.module]
                assert not inner, f"{path} imports {inner}"


def _mentioned(kind: type) -> Iterator[type]:
    """The classes of this project in a class's annotations and in those of its public methods."""
    for name, member in inspect.getmembers(kind, inspect.isroutine):
        # Of pydantic's own methods nothing is ours, and some name what only it can resolve.
        ours = (getattr(member, "__module__", None) or "").startswith("stepback_")
        if ours and (not name.startswith("_") or name == "__init__"):
            for hint in get_type_hints(inspect.unwrap(member)).values():
                yield from _classes(hint)
    if issubclass(kind, BaseModel) or hasattr(kind, "__required_keys__"):
        for hint in get_type_hints(kind).values():
            yield from _classes(hint)


def _classes(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and hint.__module__.startswith("stepback_"):
        yield hint
    for inner in get_args(hint):
        yield from _classes(inner)
