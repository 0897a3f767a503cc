"""`stepback task new NAME`."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

from stepback_training.generators import GENERATORS, is_test_input
from stepback_training.scaffold import templates

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_WORDS = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen")


def task(arguments: Sequence[str]) -> int:
    """Write a package with a new task. Returns 0, or 2 for what is refused."""
    parser = argparse.ArgumentParser("stepback task", description="Tasks of your own.")
    new = parser.add_subparsers(metavar="COMMAND", required=True).add_parser(
        "new", help="write a package", description="Write a package with a task and its tests."
    )
    new.add_argument("name", metavar="NAME", help="of the task: small letters, digits, underscores")
    new.add_argument("--out", type=Path, help="the package's folder; stepback-NAME if left out")
    given = parser.parse_args(arguments)
    folder: Path = given.out or Path(f"stepback-{given.name}")
    if not _NAME.fullmatch(given.name):
        return _refuse(f"{given.name!r} is no name of a task: small letters, digits, underscores")
    if given.name in GENERATORS or given.name == "traces":
        return _refuse(f"{given.name} is the name of a built-in task; choose another")
    try:
        write_package(given.name, folder)
    except OSError as error:
        return _refuse(f"{error.filename}: {error.strerror}")
    print(f"{folder}: pip install -e {folder} && pytest {folder}")
    return 0


def write_package(name: str, folder: Path) -> None:
    """Write a package for a task of this name into a folder that is not there. Raises OSError."""
    module = f"stepback_{name}"
    title = "".join(part.capitalize() for part in name.split("_"))
    values = {"name": name, "module": module, "title": title, "example": _example(name)}
    folder.mkdir(parents=True)
    files = {
        "pyproject.toml": templates.PYPROJECT,
        "README.md": templates.README,
        "recipe.toml": templates.RECIPE,
        f"{module}/checker.py": templates.CHECKER,
        f"{module}/generator.py": templates.GENERATOR,
        f"tests/test_{name}.py": templates.TEST,
    }
    for path, template in files.items():
        file = folder / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(template.substitute(values), encoding="utf-8")
    (folder / module / "__init__.py").write_text(f'"""The task {name}."""\n', encoding="utf-8")


def _example(name: str) -> str:
    """The words of a problem that the split by its prompt keeps out of training."""
    rng = Random(name)
    while True:
        words = tuple(rng.sample(_WORDS, 4))
        if is_test_input(f"{name}:{','.join(words)}"):
            return "(" + ", ".join(f'"{word}"' for word in words) + ")"


def _refuse(why: str) -> int:
    print(f"stepback task: {why}", file=sys.stderr)
    return 2
