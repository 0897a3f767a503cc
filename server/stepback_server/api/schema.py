"""The OpenAPI schema of this very server: what its operator allows, not what any server might."""

from collections.abc import Collection
from typing import Any

from fastapi import FastAPI

from stepback_server.api.paths import SEARCH_PATH
from stepback_server.api.sse import with_events
from stepback_server.settings import Settings

_HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {
        "description": "The name of this request in the server's log: the caller's own, where it "
        "sent one in this header that can stand there.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {
        "description": "How to send a key.",
        "required": True,
        "schema": {"const": "Bearer"},
    },
    "Idempotent-Replayed": {
        "description": "Stands where this is the result of an earlier request with the same "
        "`Idempotency-Key`.",
        "schema": {"const": "true"},
    },
}
# Header that belongs to an error status.
_STATUS_HEADERS = {"401": "WWW-Authenticate", "429": "Retry-After", "503": "Retry-After"}


def schema_of(
    app: FastAPI, settings: Settings, tasks: Collection[str], scorers: Collection[str]
) -> dict[str, Any]:
    """Return FastAPI's schema with the limits of these settings instead of the protocol's own, and
    with only the tasks and scorers that are served here."""
    # Made once: /openapi.json is asked for again and again.
    if app.openapi_schema is None:
        schema = with_events(FastAPI.openapi(app))
        _describe_headers(schema)
        models = schema["components"]["schemas"]
        _offer(models["SolveRequest"], tasks)
        request = models["SolveRequest"]["properties"]
        request["scorer"] = {
            "description": request["scorer"]["description"],
            "enum": [*scorers, None],
            "default": None,
        }
        request["breadth"]["maximum"] = settings.max_breadth
        request["backtracks"]["maximum"] = settings.max_backtracks
        budget = models["Budget"]["properties"]
        _number(budget["tokens"])["maximum"] = settings.budget_tokens
        _number(budget["seconds"])["maximum"] = settings.budget_seconds
        # A default above the maximum would make the schema contradict itself.
        for name in ("breadth", "backtracks"):
            request[name]["default"] = min(request[name]["default"], request[name]["maximum"])
    assert app.openapi_schema is not None
    return app.openapi_schema


def _describe_headers(schema: dict[str, Any]) -> None:
    schema["components"]["headers"] = _HEADERS
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                names = ["X-Request-Id"]
                if status in _STATUS_HEADERS and "ErrorBody" in str(answer["content"]):
                    names.append(_STATUS_HEADERS[status])
                if (path, status) == (SEARCH_PATH, "200"):
                    names.append("Idempotent-Replayed")
                answer["headers"] = {
                    name: {"$ref": f"#/components/headers/{name}"} for name in names
                }


def _offer(request: dict[str, Any], tasks: Collection[str]) -> None:
    """Leave these tasks and the bare prompt in the schema of a request."""
    forms = request["oneOf"]
    named = [form for form in forms if form["properties"]["task"].get("const") in tasks]
    prompts = [form for form in forms if "const" not in form["properties"]["task"]]
    request["oneOf"] = named + prompts
    problem = request["properties"]["problem"]
    problem["anyOf"] = [form["properties"]["problem"] for form in named] + [{"type": "null"}]
    request["examples"] = [each for each in request["examples"] if each["task"] in tasks]


def _number(field: dict[str, Any]) -> dict[str, Any]:
    """The numeric part of a field that may be null."""
    return next(part for part in field["anyOf"] if part["type"] != "null")
