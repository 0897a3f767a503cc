"""What the trials share: a real controller with keys, and a verdict."""

import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from stepback_core.tasks import CountdownProblem
from stepback_server.keys import new_key
from tests.conftest import start_controller, wait_until_ready


@dataclass(frozen=True)
class Controller:
    """A controller that is ready, and the keys of its tenants by name."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    keys: Mapping[str, str]

    def headers(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[name]}"}

    def resident_mib(self) -> float:
        """Memory of the controller's own process, its engine's apart."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [kilobytes] = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")]
        return int(kilobytes) / 1024

    def leaks(self, text: str) -> list[str]:
        """What of the server's inside stands in an answer."""
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
def controller(*names: str, **settings: Any) -> Iterator[Controller]:
    """A controller of a trial's own, with a key for each name."""
    with tempfile.TemporaryDirectory() as folder:
        log, file = Path(folder) / "log.txt", Path(folder) / "keys.toml"
        made = {name: new_key(name) for name in names}
        file.write_text("\n".join(line for _, line in made.values()))
        process, url = start_controller(log, keys_file=file, **settings)
        try:
            wait_until_ready(url, process, log)
            yield Controller(process, url, log, {name: key for name, (key, _) in made.items()})
        finally:
            process.terminate()
            process.wait(timeout=60)


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
