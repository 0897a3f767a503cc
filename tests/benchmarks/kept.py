"""Measured rows in files. Each names its model and problems, so no other experiment reads it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from stepback_training.atomic_files import write_whole
from stepback_training.config import Recipe
from stepback_training.train.run_folder import WITHOUT_EFFECT, agree
from tests.benchmarks.rows import Asked


def digest_of(problems: Sequence[BaseModel]) -> str:
    """Return SHA-256 of problems in their order, in hexadecimal."""
    return sha256("\n".join(each.model_dump_json() for each in problems).encode()).hexdigest()


def kept_row(file: Path, source: dict[str, Any]) -> list[Asked] | None:
    """Return the row in a file, or None if the file is not there yet.

    Raises ValueError where it is of another source: another model, problems or options.
    """
    if not file.exists():
        return None
    kept = json.loads(file.read_text())
    if not isinstance(kept, dict):
        raise ValueError(f"{file} is of an older version, which noted no source; move it away")
    source = json.loads(json.dumps(source))  # tuples are lists in a file
    if other := sorted(key for key in source if kept["source"].get(key) != source[key]):
        raise ValueError(
            f"{file} is of another experiment (it differs in: {', '.join(other)}); "
            "give this one another --out"
        )
    return [Asked(**each) for each in kept["asked"]]


def keep_row(file: Path, source: dict[str, Any], asked: Sequence[Asked]) -> None:
    """Write a row and its source to a file, which appears whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, [json.dumps({"source": source, "asked": [asdict(each) for each in asked]})])


def claim(folder: Path, recipe: Recipe, **samples: float) -> None:
    """Note in a new folder of what recipe and samples its arm is.

    Raises ValueError in the folder of another arm, or of one that nobody noted.
    """
    file = folder / "arm.json"
    if not file.exists() and (folder / "run").exists():
        raise ValueError(f"{folder} is of an older version, which noted no recipe; move it away")
    folder.mkdir(parents=True, exist_ok=True)
    agree(
        file,
        _arm(recipe, samples),
        lambda noted: _arm(Recipe.model_validate(noted["recipe"]), noted["samples"]),
    )


def _arm(recipe: Recipe, samples: dict[str, float]) -> dict[str, Any]:
    plain = recipe.model_dump(mode="json", exclude={"train": {*WITHOUT_EFFECT}})
    return {"recipe": plain, "samples": samples}
