"""Writes the reference pages from the code that they describe.

python docs/generate.py            write them (`make docs`)
python docs/generate.py --check    fail where one is stale
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from stepback_core.schemas import Answer, Budget, SolveRequest, SolveResult, TreeNode, Usage
from stepback_server.errors import ERRORS
from stepback_server.observability.metrics import Live, Metrics
from stepback_server.settings import Settings, flag_of, variable_of

FOLDER = Path(__file__).parent
_SETTINGS_TEXT = """\
Environment variables, and flags of `stepback serve` over them. An unknown or malformed one stops
the start with one line that names it. Secrets have no flag, since every user of a machine can read
the flags of its processes.

Traces have the standard variables of OpenTelemetry instead: `OTEL_EXPORTER_OTLP_ENDPOINT` turns
them on. See [logs and traces](logs.md).
"""
_METRICS_TEXT = """\
`GET /metrics`, in Prometheus' text form. It also has the metrics of the process (`process_...`,
`python_...`). With an embedded engine it has those of vLLM (`vllm:...`) too. A histogram has the
series `_bucket`, `_sum` and `_count`.

`stepback_controller_seconds` is the controller's own time between two rounds of a search: one
observation a round. A round is one request for samples to the engine. The time begins when the
engine has delivered, and ends with the next request. After the last round it ends with the answer.
It is wall time, so it grows with the load: other work of the event loop counts too.
"""
_ERRORS_TEXT = """\
Every error has one body, `{"error": {"type", "message", "param", "code"}}`: `code` is for programs
and stays, `message` is for people and may change, `param` is the dotted field at fault.
`X-Request-Id` in the answer names the request in the log; `stepback_refused_total` counts the
errors of `/solve` by code.
"""
_FIELDS_TEXT = """\
A request names a `task` and its `problem`, or has a `prompt`; all else may be left out. An unknown
field is refused. [The HTTP interface](../http.md) says what the fields mean together, and
[search](../search.md) what the strategies do with them. The Python client has classes of these
names, with `None` for `null`.
"""
_REQUEST = {"`SolveRequest`": SolveRequest, "`Budget`": Budget}
_RESULT = {
    "`SolveResult`": SolveResult,
    "`Answer`": Answer,
    "`Usage`": Usage,
    "`TreeNode`": TreeNode,
}
_NOTICE = "<!-- Written by docs/generate.py (`make docs`): change the code, not this page. -->"


def settings_page() -> str:
    rows = (
        (
            f"`{variable_of(name)}`",
            f"`{flag}`" if (flag := flag_of(name)) else "none: a secret",
            f"`{field.default}`",
            " ".join((field.description or "").split()),
        )
        for name, field in Settings.model_fields.items()
    )
    return _page(
        "Settings",
        _SETTINGS_TEXT,
        ("variable", "flag", "default", "meaning"),
        rows,
    )


def metrics_page() -> str:
    metrics = Metrics(Live(searching=_nil, queued=_nil, engines_up=_nil, restarts=_nil))
    rows = (
        (f"`{each.name}`", each.kind, ", ".join(f"`{n}`" for n in each.labels), each.text)
        for each in metrics.described
    )
    return _page(
        "Metrics",
        _METRICS_TEXT,
        ("name", "kind", "labels", "meaning"),
        rows,
    )


def errors_page() -> str:
    rows = (
        (str(kind.status), f"`{kind.type}`", f"`{code}`", kind.meaning, kind.remedy)
        for code, kind in sorted(ERRORS.items(), key=lambda item: item[1].status)
    )
    return _page(
        "Errors",
        _ERRORS_TEXT,
        ("status", "type", "code", "meaning", "what to do"),
        rows,
    )


def fields_page() -> str:
    """Fields of a request and of a result, by their models."""
    sections = [
        *(f"## {title}\n\n{_request_table(model)}" for title, model in _REQUEST.items()),
        *(f"## {title}\n\n{_result_table(model)}" for title, model in _RESULT.items()),
    ]
    return f"# Fields of `/solve`\n\n{_NOTICE}\n\n{_FIELDS_TEXT}\n" + "\n".join(sections)


def _request_table(model: type[BaseModel]) -> str:
    schema = model.model_json_schema()
    rows = (
        # What may be left out may be null as well: that needs no word.
        (f"`{name}`", _type_of(field, schema), _default_of(field), _text_of(field))
        for name, field in schema["properties"].items()
    )
    return _table(("field", "type", "default", "meaning"), rows)


def _result_table(model: type[BaseModel]) -> str:
    schema = model.model_json_schema(mode="serialization")
    rows = (
        (f"`{name}`", _type_of(field, schema) + _or_null(field), _text_of(field))
        for name, field in schema["properties"].items()
    )
    return _table(("field", "type", "meaning"), rows)


def _or_null(field: dict[str, Any]) -> str:
    return ", or null" if {"type": "null"} in field.get("anyOf", ()) else ""


def _text_of(field: dict[str, Any]) -> str:
    return " ".join(field.get("description", "").split())


def _type_of(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """The type of a field of a JSON schema, with its limits, whether or not it may be null."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        values = schema["$defs"][name].get("enum")
        return ", ".join(f"`{each}`" for each in values) if values else f"`{name}`"
    if "anyOf" in field:
        # A task's problem has many forms, and each is an object.
        kinds = [_type_of(each, schema) for each in field["anyOf"] if each != {"type": "null"}]
        return ", or ".join(dict.fromkeys(kinds))
    if field["type"] == "array":
        item = field["items"]
        return f"array: {_type_of(item, schema)}{_or_null(item).replace(',', '')}"
    return " ".join([field["type"], *_limits_of(field)])


def _limits_of(field: dict[str, Any]) -> Iterable[str]:
    words = {
        "minimum": "from {}",
        "exclusiveMinimum": "above {}",
        "maximum": "to {}",
        "exclusiveMaximum": "below {}",
        "maxLength": "of at most {} characters",
    }
    return (text.format(f"{field[key]:,}") for key, text in words.items() if key in field)


def _default_of(field: dict[str, Any]) -> str:
    default = field["default"]
    # What an object has by default stands in the object's own table.
    return "" if default is None or isinstance(default, dict) else f"`{json.dumps(default)}`"


PAGES = {
    "operations/settings.md": settings_page,
    "operations/metrics.md": metrics_page,
    "operations/errors.md": errors_page,
    "reference/fields.md": fields_page,
}


def _nil() -> float:
    return 0


def _page(title: str, text: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    return f"# {title}\n\n{_NOTICE}\n\n{text}\n{_table(head, rows)}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    table = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in table)


def main() -> int:
    """Write or check every page. Returns 1 where one is stale."""
    stale = [name for name, page in PAGES.items() if _read(FOLDER / name) != page()]
    if "--check" in sys.argv[1:]:
        for name in stale:
            print(f"docs/{name} is stale: run make docs", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (FOLDER / name).write_text(PAGES[name](), encoding="utf-8")
    return 0


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
