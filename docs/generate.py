"""Writes the operators' reference pages from the code that they describe.

python docs/generate.py            write them (`make docs`)
python docs/generate.py --check    fail where one is stale
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from stepback_server.errors import ERRORS
from stepback_server.observability.metrics import Live, Metrics
from stepback_server.settings import Settings, flag_of, variable_of

FOLDER = Path(__file__).parent / "operations"
_SETTINGS_TEXT = """\
Environment variables, and flags of `stepback serve` over them. An unknown or malformed one stops
the start with one line that names it. Secrets have no flag, since every user of a machine can read
the flags of its processes.

Traces have the standard variables of OpenTelemetry instead: `OTEL_EXPORTER_OTLP_ENDPOINT` turns
them on. See [logs and traces](logs.md).
"""
_METRICS_TEXT = """\
`GET /metrics`, in Prometheus' text form. Beside these stand the process's own (`process_...`,
`python_...`) and, where vLLM lives in the controller, vLLM's (`vllm:...`). A histogram has the
series `_bucket`, `_sum` and `_count`.

`stepback_controller_seconds` is wall time of one search, one observation a round. It is the time
for recording what the engine delivers, for the way back through the seam, for picking what is next
and, after the last round, for ranking and writing the answer. Whatever else the event loop does
meanwhile counts too, so it grows with the load. Turning a round into vLLM's requests is part of the
round.
"""
_ERRORS_TEXT = """\
Every error has one body, `{"error": {"type", "message", "param", "code"}}`: `code` is for programs
and stays, `message` is for people and may change, `param` is the dotted field at fault.
`X-Request-Id` in the answer names the request in the log; `stepback_refused_total` counts the
errors of `/solve` by code.
"""
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


PAGES = {"settings.md": settings_page, "metrics.md": metrics_page, "errors.md": errors_page}


def _nil() -> float:
    return 0


def _page(title: str, text: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    table = [head, ["---"] * len(head), *rows]
    lines = (f"| {' | '.join(row)} |" for row in table)
    return f"# {title}\n\n{_NOTICE}\n\n{text}\n" + "\n".join(lines) + "\n"


def main() -> int:
    """Write or check every page. Returns 1 where one is stale."""
    stale = [name for name, page in PAGES.items() if _read(FOLDER / name) != page()]
    if "--check" in sys.argv[1:]:
        for name in stale:
            print(f"docs/operations/{name} is stale: run make docs", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (FOLDER / name).write_text(PAGES[name](), encoding="utf-8")
    return 0


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
