"""The log: lines for a terminal or JSON for a collector, each with the name of its request."""

import logging
import os
import sys
from pathlib import Path
from typing import Any, Literal, TextIO

from pythonjsonlogger.json import JsonFormatter

from stepback_server.request_context import CURRENT

LogFormat = Literal["text", "json"]

VLLM_JSON = Path(__file__).with_name("vllm_json.json")
"""A logging configuration for vLLM's own processes, so that their lines are JSON too."""


def configure_logs(level: str, log_format: LogFormat) -> None:
    """Send every logger of this process, uvicorn's included, to standard error in one form."""
    handler = logging.StreamHandler(_own_standard_error())
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # It tells every request, and remote engines are asked several a second.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # Else a library's warning would be a line of another form.
    logging.captureWarnings(True)


def _own_standard_error() -> TextIO:
    # A copy: while an engine starts, descriptor 2 leads to a pipe that gathers the engine's lines.
    encoding, errors = sys.stderr.encoding, sys.stderr.errors
    return os.fdopen(os.dup(2), "w", buffering=1, encoding=encoding, errors=errors)


class TextLines(logging.Formatter):
    """One line a record: what a person reads, then the fields as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        shown = {name: value for name, value in _fields(record).items() if value is not None}
        pairs = (f"{name}={value}" for name, value in shown.items())
        return " ".join([super().formatMessage(record), *pairs])


class JsonLines(JsonFormatter):
    """One JSON object a record: `time`, `level`, `logger`, `message`, then the fields."""

    def __init__(self) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType] - typed in part
            ["levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "error"},
            timestamp="time",
        )

    def add_fields(
        self,
        log_data: dict[str, Any],
        record: logging.LogRecord,
        message_dict: dict[str, Any],
    ) -> None:
        super().add_fields(log_data, record, message_dict)
        log_data.pop("fields", None)
        log_data.update(_fields(record))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Fields of a record besides its message, and the request that it belongs to."""
    fields: dict[str, Any] = dict(getattr(record, "fields", {}))
    if (request := CURRENT.get()) is not None:
        fields["request_id"] = request.id
    return fields
