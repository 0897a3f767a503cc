"""A PostgreSQL of the tests' own, from Debian's packages, run by an unprivileged user."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import free_port
from tests.process_tree import children

_USER = "nobody"
"""PostgreSQL refuses to run as root."""


@dataclass(frozen=True)
class Postgres:
    """A cluster; `start` and `stop` it as an outage does."""

    programs: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and return once it answers."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = self.folder / "log.txt"
        self._run("pg_ctl", "start", "-w", "-t", "120", "-l", str(log), "-o", options)

    def stop(self) -> None:
        """Stop it as a crash does, with every connection."""
        self._run("pg_ctl", "stop", "-m", "immediate", "-w", "-t", "120")

    def freeze(self) -> None:
        """Stop every process of it, so that it takes connections and answers nobody."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        pid = int((self.folder / "data/postmaster.pid").read_text().split()[0])
        for each in (pid, *children(pid)):
            os.kill(each, number)

    def create(self, name: str) -> str:
        """Make an empty database, and return its URL."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", name)
        return self.url.removesuffix("postgres") + name

    def _run(self, program: str, *arguments: str) -> None:
        data = ["-D", str(self.folder / "data")] if program in {"pg_ctl", "initdb"} else []
        subprocess.run(
            [self.programs / program, *data, *arguments],
            check=True,
            user=_USER if os.getuid() == 0 else None,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
            timeout=180,
        )


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running cluster in a folder of its own. Skips where none is installed, but in CI fails."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found and not os.environ.get("CI"):
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    assert found, "PostgreSQL is not installed"
    folder = Path(tempfile.mkdtemp(prefix="stepback-postgres-"))
    if os.getuid() == 0:
        shutil.chown(folder, pwd.getpwnam(_USER).pw_uid)
    cluster = Postgres(found[-1].parent, folder, free_port())
    try:
        cluster._run("initdb", "-U", "postgres", "--auth=trust", "--no-sync")
        cluster.start()
        yield cluster
        cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
