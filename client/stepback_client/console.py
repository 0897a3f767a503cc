"""Output to a terminal or a pipe whose encoding may be narrow: cp1252, ASCII."""

import codecs
import sys

# Signs of the tree and of pictures in ASCII.
_PLAIN = {
    "✓": "+", "●": "*", "✗": "x", "↩": "<", "⊘": "!", "…": "...",
    "│": "|", "├": "|", "└": "`", "─": "-", "·": "-", "\N{MULTIPLICATION SIGN}": "x",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'", "→": "->", "←": "<-", "↑": "^", "↓": "v",
}  # fmt: skip


def show_what_the_output_can() -> None:
    """Have standard output and error write a plain sign, or `?`, for one that they cannot encode;
    otherwise a solved problem would end as an error of the terminal."""
    codecs.register_error("stepback.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # absent where a program put its own
        if reconfigure is not None:
            reconfigure(errors="stepback.plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_PLAIN.get(sign, "?") for sign in signs), error.end
