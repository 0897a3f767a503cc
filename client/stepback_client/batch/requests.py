"""Lines of an input file of `stepback batch`, in any of three forms. Pure.

{"custom_id": "a", "method": "POST", "url": "/solve", "body": {...}}    OpenAI's
{"custom_id": "a", "body": {"task": "countdown", "problem": {...}}}
{"task": "countdown", "problem": {...}}                                 named by its number
"""

import importlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from stepback_client.batch.line_files import json_lines
from stepback_core.errors import InvalidInput

SEARCH_PATH = "/solve"


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One request of the input."""

    custom_id: str
    body: dict[str, Any]


def read_items(lines: Iterable[bytes]) -> Iterator[BatchItem]:
    """Read requests, each with an id of its own. Raises InvalidInput."""
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        item = _item(number, line)
        if item.custom_id in seen:
            raise InvalidInput(f"line {number}: custom_id {item.custom_id!r} stands twice")
        seen.add(item.custom_id)
        yield item


def read_lines(path: Path) -> Iterator[bytes]:
    """Read lines of JSONL, or rows of Parquet as such. Raises InvalidInput."""
    if path.suffix != ".parquet":
        yield from json_lines(path)
        return
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise InvalidInput(f"{path}: Parquet needs pyarrow: pip install pyarrow") from None
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                yield json.dumps(_present(row), default=_as_json).encode()
    except ValueError as error:  # pyarrow's own errors are of this kind.
        raise InvalidInput(f"{path}: it cannot be read as Parquet: {error}") from None


def _present(value: Any) -> Any:
    """A row without its nulls: a table has a column where some rows have nothing."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {name: _present(each) for name, each in fields.items() if each is not None}
    if isinstance(value, list):
        return [_present(each) for each in cast("list[Any]", value)]
    return value


def _as_json(value: Any) -> Any:
    """The nearest JSON of a type that tables have and JSON lacks."""
    match value:
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            return value.decode(errors="replace")
        case _:  # Dates, times, UUIDs.
            return str(value)


def _item(number: int, line: bytes) -> BatchItem:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InvalidInput(f"line {number}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"line {number}: write one JSON object a line")
    fields = cast("dict[str, Any]", value)
    if "body" not in fields:
        custom_id = fields.pop("custom_id", number)
        return BatchItem(_named(number, custom_id), fields)
    if fields.get("url", SEARCH_PATH) != SEARCH_PATH:
        raise InvalidInput(f"line {number}: url: only {SEARCH_PATH} is asked from here")
    if not isinstance(fields["body"], dict):
        raise InvalidInput(f"line {number}: write body as an object")
    body = cast("dict[str, Any]", fields["body"])
    return BatchItem(_named(number, fields.get("custom_id")), body)


def _named(number: int, custom_id: object) -> str:
    """The id of a line; a table's column may have numbers. Raises InvalidInput."""
    if isinstance(custom_id, bool) or not isinstance(custom_id, str | int) or custom_id == "":
        raise InvalidInput(f"line {number}: write custom_id as text or an integer")
    return str(custom_id)
