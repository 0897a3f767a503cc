"""Measured rows in files, each beside what it was asked of: no other experiment reads it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tests.benchmarks.rows import Asked


def digest_of(problems: Sequence[BaseModel]) -> str:
    """Return SHA-256 of problems in their order, in hexadecimal."""
    return sha256("\n".join(each.model_dump_json() for each in problems).encode()).hexdigest()


def kept_row(file: Path, source: dict[str, Any]) -> list[Asked] | None:
    """Return the row in a file; None where there is none yet.

    Raises ValueError where it is of another source: another model, problems or options.
    """
    if not file.exists():
        return None
    kept = json.loads(file.read_text())
    _check_same(file, kept["source"] if isinstance(kept, dict) else {}, source)
    return [Asked(**each) for each in kept["asked"]]


def keep_row(file: Path, source: dict[str, Any], asked: Sequence[Asked]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"source": source, "asked": [asdict(each) for each in asked]}))


def claim(file: Path, source: dict[str, Any]) -> None:
    """Note in a new folder, in a file, what it is for. Raises ValueError in that of something
    else, also where nobody noted it."""
    if file.parent.exists():
        _check_same(file, json.loads(file.read_text()) if file.exists() else {}, source)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(source))


def _check_same(file: Path, kept: dict[str, Any], source: dict[str, Any]) -> None:
    source = json.loads(json.dumps(source))  # tuples are lists in a file
    other = sorted(key for key in {*kept, *source} if kept.get(key) != source.get(key))
    if other:
        raise ValueError(
            f"{file} is of another experiment (it differs in: {', '.join(other)}); "
            "give this one another --out"
        )
