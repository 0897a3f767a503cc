"""Context of the HTTP request at work, for every function that it calls."""

import re
import uuid
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from stepback_server.redaction import hide_keys

CLIENT_CLOSED_REQUEST = 499
"""The status of a request whose caller hung up; only the log shows it."""
_WELL_FORMED = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)


@dataclass(slots=True)
class RequestRecord:
    """One request: its name, and what its line of the access log will say."""

    id: str
    """Also the answer's `X-Request-Id`."""
    trace: Mapping[str, str] = field(default_factory=dict[str, str])
    """The caller's own W3C trace context: `traceparent` and `tracestate`, where it sent them."""
    caller: str | None = None
    """The name of the key that the caller showed; never the key."""
    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    """Further fields of the access log, by name. No content of the request, and no secret."""


CURRENT: ContextVar[RequestRecord | None] = ContextVar("request", default=None)
"""The request at work. Tasks that it starts see the same record."""

ONWARD: ContextVar[Mapping[str, str]] = ContextVar("onward", default=MappingProxyType({}))
"""The trace context of the engine round at work; empty where nothing is traced."""


def trace_headers() -> Mapping[str, str]:
    """The headers that pass the trace on to an engine over HTTP: send them with a round."""
    return ONWARD.get()


def note(**fields: Any) -> None:
    """Add to the access line of the request at work; outside of a request, do nothing."""
    if (record := CURRENT.get()) is not None:
        record.fields.update(fields)


def name_request(offered: str | None) -> str:
    """The caller's own name for its request if it is well formed, else a new one."""
    # It is logged and sent back, so one that looks like a key in the wrong header is none.
    if offered and _WELL_FORMED.fullmatch(offered) and hide_keys(offered) == offered:
        return offered
    return uuid.uuid4().hex
