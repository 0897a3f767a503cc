"""Schemathesis against the OpenAPI schema: every check, at least 5,000 cases, no failure."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.progress import clock
from tests.trials.base import Controller, controller, verdict

CASES = 5000


def check(target: Controller, examples: int) -> subprocess.CompletedProcess[str]:
    """Run the command with a key and our hooks."""
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / "schemathesis.toml"
        key = target.keys["alice"]
        # Streams are read to their end.
        configuration.write_text(
            f'max-stream-events = 100000\n[auth.openapi]\nkey = {{ bearer = "{key}" }}\n'
        )
        options = ["--config-file", configuration, "run", f"{target.url}/openapi.json"]
        options += ["--checks", "all", "--max-examples", examples, "--no-color"]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        hooks = {"SCHEMATHESIS_HOOKS": "tests.trials.schemathesis_hooks", "PYTHONPATH": path}
        return subprocess.run(
            [str(Path(sys.executable).with_name("schemathesis")), *map(str, options)],
            cwd=folder,
            env=os.environ | hooks,
            capture_output=True,
            text=True,
            check=False,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=2500, help="of each operation and kind")
    given = parser.parse_args()
    # Small searches: what is tried is the door, not the model.
    small: dict[str, Any] = {
        "max_breadth": 32,
        "max_backtracks": 2,
        "budget_tokens": 300,
        "budget_seconds": 1,
        # Without it new weights are answered with 501, which the checks take for a fault.
        "reload_root": ROOT / "models",
    }
    with controller("alice", log_level="warning", **small) as target:
        with clock("schema"):
            done = check(target, given.examples)
        logged, restarts = target.logged(), target.restarts()
    if done.returncode:
        print(done.stdout[-6000:], done.stderr[-2000:])
    found = re.search(r"(\d+) generated, (.*)", done.stdout)
    return verdict(
        "schema",
        found[0] if found else "no cases",
        no_failure=done.returncode == 0,
        enough_cases=found is not None and int(found[1]) >= CASES,
        logged=logged,
        no_engine_lost=restarts == 0,
    )


if __name__ == "__main__":
    sys.exit(main())
