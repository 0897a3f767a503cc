"""Lines of an input file of `stepback batch`, in any of three forms. Pure.

{"custom_id": "a", "method": "POST", "url": "/solve", "body": {...}}    OpenAI's
{"custom_id": "a", "body": {"task": "countdown", "problem": {...}}}
{"task": "countdown", "problem": {...}}                                 named by its number
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

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
