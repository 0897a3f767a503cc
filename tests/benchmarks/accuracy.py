"""`make results`: `stepback evaluate` against a controller of its own.

    python -m tests.benchmarks.accuracy [FLAGS OF stepback evaluate]

If left out: 1,000 problems of each test kind, N=16, b=0 and b=1, best-of-N at the tokens of each
search beside them, into runs/results.json.
"""

import sys
import tempfile
from pathlib import Path

from stepback_training.evaluate.cli import evaluate
from tests.conftest import controller

_FLAGS = ["--breadths", "16", "--at-equal-tokens", "--seed", "2026", "--out", "runs/results.json"]


def main() -> int:
    with (
        tempfile.TemporaryDirectory() as folder,
        controller(Path(folder) / "log.txt", log_level="warning") as url,
    ):
        # Last, so that it is this controller whatever else is said.
        return evaluate([*_FLAGS, *sys.argv[1:], "--url", url])


if __name__ == "__main__":
    sys.exit(main())
