"""Corrections of good requests where JSON schema cannot say enough; what is bad stays bad.

- The model's alphabet: a prompt becomes one that the bundled checkpoint can read.
- That new weights are there: a path that may be one becomes the folder that is served already.
- That a name is fresh: an Idempotency-Key becomes one that no earlier case has used.
- That an integer is written as one: 14.0 is an integer to JSON schema, and becomes 14.

And what Schemathesis does not look at: where a stream begins and ends.
"""

import itertools
import re
from typing import Any

import schemathesis

from tests.conftest import SERVED

_numbers = itertools.count()
_GOOD_KEY = re.compile(r"[!-~]{1,255}")


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    case.body = _with_integers(case.body)
    prompt = case.body.get("prompt") if isinstance(case.body, dict) else None
    if isinstance(prompt, str) and 0 < len(prompt) <= 100_000:
        case.body["prompt"] = "countdown:3,5,7,25=41"
    path = case.body.get("path") if isinstance(case.body, dict) else None
    if isinstance(path, str) and 0 < len(path) <= 4096:
        case.body["path"] = SERVED
    headers = case.headers or {}
    for name in [name for name in headers if name.lower() == "idempotency-key"]:
        if isinstance(headers[name], str) and _GOOD_KEY.fullmatch(headers[name]):
            headers[name] = f"case-{next(_numbers)}"


@schemathesis.check
def streams_are_whole(ctx: Any, response: Any, case: Any) -> None:
    """Check that a stream goes from `started` to `result`."""
    [kind, *_] = response.headers.get("content-type", [""])
    if kind.startswith("text/event-stream"):
        types = re.findall(r"^event: (\w+)$", response.text, re.MULTILINE)
        assert types[0] == "started" and types[-1] == "result", f"a stream of {types}"


def _with_integers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_integers(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_with_integers(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
