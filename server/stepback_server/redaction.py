"""Redaction of API keys in what is logged or sent back."""

import re

KEY_PREFIX = "stepback_"
"""Shows a leaked key for what it is."""
# Also as a part of a URL.
_LIKE_A_KEY = re.compile(rf"{KEY_PREFIX[:-1]}(?:_|%5f)[^\s/?&,;]*", re.IGNORECASE)


def hide_keys(text: str) -> str:
    """The text without anything that looks like a key of ours: for what callers write themselves
    and others read. Equal to the text where there is none."""
    return _LIKE_A_KEY.sub("***", text)
