"""Children die with their parent, also where they cannot run themselves."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_FAMILY = """
import asyncio, multiprocessing, os, sys, time
from stepback_server.engine.orphan import die_with_parent

def live(early):
    if not early:
        die_with_parent()
    print(os.getpid(), flush=True)
    time.sleep(60)

def unpickled():
    print(os.getpid(), flush=True)
    time.sleep(1)
    die_with_parent()
    return True

class Early:
    def __reduce__(self):
        return unpickled, ()

async def main():
    task = Early() if "early" in sys.argv else False
    child = multiprocessing.get_context("spawn").Process(target=live, args=(task,))
    await asyncio.to_thread(child.start)
    await asyncio.sleep(60)

if __name__ == "__main__":
    asyncio.run(main())
"""
"""Start an engine as the supervisor does: from a thread of the loop's pool. With `early` as vLLM
loads its platform: in the midst of unpickling, and here while nobody watches yet."""

Family = tuple[subprocess.Popen[str], int]


@pytest.fixture
def family(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Family]:
    """A parent, and the child's id."""
    script = tmp_path / "family.py"
    script.write_text(_FAMILY)
    parent = subprocess.Popen(
        [sys.executable, str(script), request.param], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        yield parent, child
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
        if Path(f"/proc/{child}").exists():
            os.kill(child, signal.SIGKILL)


def is_gone(pid: int) -> bool:
    """A process that nobody has reaped yet is gone as well."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("family", ["late"], indirect=True)
def test_a_child_dies_with_its_parent_even_if_it_is_stopped(family: Family, stopped: bool) -> None:
    parent, child = family
    if stopped:
        os.kill(child, signal.SIGSTOP)
    time.sleep(0.3)
    assert not is_gone(child), "the thread that started it has not gone"
    assert_dies_with(parent, child)


@pytest.mark.parametrize("family", ["early"], indirect=True)
def test_a_child_dies_of_a_parent_that_had_gone_before_it_looked(family: Family) -> None:
    assert_dies_with(*family)


def assert_dies_with(parent: subprocess.Popen[str], child: int) -> None:
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 300
    while not is_gone(child):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)
