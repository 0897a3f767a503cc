"""`make demo`: start the controller on the bundled checkpoint, solve held-out problems, stop.

Exits with 0 only when at least one problem was solved and the controller stopped cleanly.
"""

import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path
from random import Random

from stepback_client import Client, TransportError, describe
from stepback_training.generators import GENERATORS, Split

_PROBLEMS_OF_A_KIND = 3
_READY_WITHIN = 120.0
_STOPPED_WITHIN = 30.0


def main() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "controller.log"
        command = [sys.executable, "-m", "stepback_client.cli", "serve", "--port", str(port)]
        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            with Client(f"http://127.0.0.1:{port}") as client:
                started = time.monotonic()
                if not wait_until_ready(client, process):
                    print(log.read_text(), file=sys.stderr)
                    return 1
                print(f"controller ready after {time.monotonic() - started:.1f} s\n")
                solved = solve_some(client)
        finally:
            process.terminate()
            try:
                status = process.wait(timeout=_STOPPED_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    # uvicorn stops in order and then hands the signal on.
    stopped_cleanly = status in (0, -signal.SIGTERM)
    print("controller stopped" if stopped_cleanly else f"controller stopped with {status}")
    return 0 if solved and stopped_cleanly else 1


def wait_until_ready(client: Client, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + _READY_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(TransportError):
            if client.ready().ready:
                return True
        time.sleep(0.2)
    return False


def solve_some(client: Client) -> int:
    """Solve a few problems of each test kind; returns how many were solved."""
    task = GENERATORS["countdown"]
    solved = 0
    for split in (Split.TEST_SEEN, Split.TEST_NEW):
        for problem in islice(task.stream(split, Random(0)), _PROBLEMS_OF_A_KIND):
            result = client.solve(problem, seed=0)
            print(f"{', '.join(map(str, problem.numbers))} -> {problem.target}  ({split})")
            print(describe(result) + "\n")
            solved += result.status == "solved"
    return solved


if __name__ == "__main__":
    sys.exit(main())
