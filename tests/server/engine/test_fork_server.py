"""Cores that are forked from a process which has imported vLLM."""

import os
import signal
from pathlib import Path

from stepback_server.engine.fork_server import are_loaded
from tests import warm

_CONTROLLER = """
import os, signal, sys, threading, time

def core(question):
    # A handler that was inherited would not be a core's own.
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    print(question, os.environ["SAID_LATE"], "vllm" in sys.modules, flush=True)
    sys.exit(7)

def last():
    print("lives", flush=True)
    time.sleep(60)

def statuses(process):
    # What several threads are told that look all the time.
    told = []
    def look():
        while (status := process.exitcode) is None:
            pass
        told.append(status)
    threads = [threading.Thread(target=look) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return set(told)

def main():
    from stepback_server.engine.fork_server import start_fork_server
    from stepback_server.engine.output import Output
    from stepback_server.engine.vllm_environment import prepare_environment

    prepare_environment(cpu=True)
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    start_fork_server()
    from vllm.v1.engine import utils
    assert utils.get_mp_context().get_start_method() == "spawn", "forked beside a thread"
    over.set()
    thread.join()

    start_fork_server()
    os.environ["SAID_LATE"] = "as of the start"
    output = Output()
    with output.capture():
        process = utils.get_mp_context().Process(target=core, args=("asked",), name="EngineCore")
        process.start()
    print(statuses(process), output.last_lines())

    last_output = Output()
    with last_output.capture():
        process = utils.get_mp_context().Process(target=last, name="EngineCore")
        process.start()
    while not last_output.last_lines():
        time.sleep(0.05)
    server = int(open(f"/proc/{process.pid}/stat").read().rpartition(")")[2].split()[1])
    # Stopped or not, its end is theirs.
    os.kill(process.pid, signal.SIGSTOP)
    os.kill(server, signal.SIGKILL)
    print(statuses(process), utils.get_mp_context().get_start_method())

if __name__ == "__main__":
    main()
"""


def test_a_core_has_vllm_and_this_moments_environment_and_streams(tmp_path: Path) -> None:
    (tmp_path / "controller_of_cores.py").write_text(_CONTROLLER)
    path = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = warm.run("controller_of_cores", env=path)
    assert done.returncode == 0, done.stderr
    said = "asked as of the start True"
    # The streams are passed on, and their last lines are kept.
    assert done.stdout.splitlines() == [
        said,
        f"{{7}} ('{said}',)",
        "lives",
        f"{{{-signal.SIGKILL}}} spawn",
    ]


def test_a_library_that_is_to_be_preloaded_is_looked_for(tmp_path: Path) -> None:
    mapped = next(
        line.split()[-1]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(".so")
    )
    link = tmp_path / "link.so"
    link.symlink_to(mapped)
    assert are_loaded("") and are_loaded(f"{mapped}:{link}")
    assert not are_loaded(f"{mapped}:{tmp_path}/libtcmalloc.so")
