"""The caller's own settings: STEPBACK_URL, STEPBACK_API_KEY, STEPBACK_HEADERS.

Secrets come from here and never from flags, which every user of a machine can read.
"""

import os

from stepback_client.connection import DEFAULT_URL
from stepback_client.errors import BadSetting


def server_url() -> str:
    """The controller's address."""
    return os.environ.get("STEPBACK_URL") or DEFAULT_URL


def api_key() -> str | None:
    """The caller's key, where there is one."""
    return os.environ.get("STEPBACK_API_KEY") or None


def own_headers() -> dict[str, str]:
    """Headers for what stands before the controller, one `Name: value` a line.

    Raises BadSetting for a line that is none, without repeating it.
    """
    headers: dict[str, str] = {}
    for number, line in enumerate(os.environ.get("STEPBACK_HEADERS", "").splitlines(), 1):
        name, separator, value = line.partition(":")
        if line.strip() and not separator:
            raise BadSetting(f"STEPBACK_HEADERS: line {number} is not of the form Name: value")
        if line.strip():
            headers[name.strip()] = value.strip()
    return headers
