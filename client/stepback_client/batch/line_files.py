"""JSONL files as people's editors write them: with a byte order mark, or not JSONL at all."""

import codecs
from collections.abc import Iterator
from pathlib import Path

from stepback_core.errors import InvalidInput

_GZIP = b"\x1f\x8b"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def json_lines(file: Path) -> Iterator[bytes]:
    """The lines of a file, without a byte order mark. Raises InvalidInput, and OSError."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines):
            text = line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
            if number == 0:
                _refuse_other_forms(file, text)
            yield text


def _refuse_other_forms(file: Path, first: bytes) -> None:
    if first.startswith(_GZIP):
        raise InvalidInput(f"{file}: it is compressed: unpack it (gunzip)")
    # PowerShell's redirection writes UTF-16; without its mark every other byte of JSON is a zero.
    if first.startswith(_UTF_16) or b"\0" in first[:4]:
        raise InvalidInput(f"{file}: it is UTF-16 or UTF-32: save it as UTF-8")
    if first.lstrip().startswith(b"["):
        raise InvalidInput(
            f"{file}: it is a JSON array: write one object a line, with no brackets around them "
            f"and no commas between (jq -c '.[]' {file.name})"
        )
