"""Shared parts of the trials: a real controller with keys, and a verdict."""

import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from stepback_core.tasks import CountdownProblem
from stepback_server.gateway.keys import new_key
from tests import warm
from tests.conftest import start_controller, wait_until_ready

AT_WORK = (
    "stepback_searching",
    "stepback_queued",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
)
"""Metrics of searches and sequences that run or wait."""


@dataclass(frozen=True)
class Controller:
    """A controller that is ready, and the keys of its tenants by name."""

    process: warm.Running
    url: str
    log: Path
    keys: Mapping[str, str]

    def headers(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[name]}"}

    def resident_mib(self) -> float:
        """Memory of the controller's own process, its engine's apart."""
        return _resident_mib(psutil.Process(self.process.pid))

    def core_resident_mib(self) -> float:
        """Memory of its engine core."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        [core] = [each for each in children if "EngineCore" in " ".join(each.cmdline())]
        return _resident_mib(core)

    def metric(self, name: str) -> float:
        """The sum of a metric's series."""
        return summed(httpx.get(f"{self.url}/metrics", timeout=30).text, name)

    def is_idle(self, seconds: float = 15) -> bool:
        """True if no search and no sequence is left within `seconds`: the engine's canary,
        of one token, may be seen on the way."""
        deadline = time.monotonic() + seconds
        while any(self.metric(name) for name in AT_WORK):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True

    def leaks(self, text: str) -> list[str]:
        """List the parts of the server's inside that stand in an answer."""
        inside = [*self.keys.values(), "Traceback", 'File "', "site-packages"]
        return [part for part in inside if part in text]

    def logged(self) -> list[str]:
        """Lines of the log that no request should cause: with a key, or of a stack trace."""
        lines = self.log.read_text().splitlines()
        wrong = [*self.keys.values(), "Traceback"]
        found = [at for at, line in enumerate(lines) if any(part in line for part in wrong)]
        # The end of a stack trace says what went wrong.
        return [line for at in found[:3] for line in lines[at : at + 150]]

    def restarts(self) -> int:
        restarts: int = httpx.get(f"{self.url}/ready", timeout=30).json()["restarts"]
        return restarts


@contextmanager
def controller(
    *names: str, limits: Mapping[str, int] | None = None, **settings: Any
) -> Iterator[Controller]:
    """A controller of a trial's own, with a key for each name; `limits` are those of the last."""
    with tempfile.TemporaryDirectory() as folder:
        log, file = Path(folder) / "log.txt", Path(folder) / "keys.toml"
        made = {name: new_key(name) for name in names[:-1]}
        made[names[-1]] = new_key(names[-1], **limits or {})
        file.write_text("\n".join(line for _, line in made.values()))
        process, url = start_controller(log, keys_file=file, **settings)
        try:
            wait_until_ready(url, process, log)
            yield Controller(process, url, log, {name: key for name, (key, _) in made.items()})
        finally:
            process.terminate()
            process.wait(timeout=300)


def _resident_mib(process: psutil.Process) -> float:
    return process.memory_info().rss / (1 << 20)


def summed(metrics: str, *names: str) -> float:
    """The sum of all series of these metrics, in Prometheus' text."""
    lines = [
        line for line in metrics.splitlines() if re.split("[ {]", line, maxsplit=1)[0] in names
    ]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def problem(number: int) -> CountdownProblem:
    """One of many problems, none like its neighbours."""
    numbers = [1 + number % 99, 1 + number // 99 % 99, 5, 7]
    return CountdownProblem(numbers=numbers, target=10 + number % 90)


def verdict(name: str, said: str, *, logged: Sequence[str], **holds: bool) -> int:
    """Say what was found; gives the exit status."""
    print("\n".join(logged))
    holds["nothing_logged"] = not logged
    broken = [claim for claim, truth in holds.items() if not truth]
    print(f"{name}: {said}")
    print(f"{name}: {'FAILED' if broken else 'all hold'}: {', '.join(broken or holds)}", flush=True)
    return 1 if broken else 0
