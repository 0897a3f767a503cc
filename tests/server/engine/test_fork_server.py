"""Cores that are forked from a process which has imported vLLM."""

import subprocess
import sys
from pathlib import Path

_CONTROLLER = """
import os, signal, sys, threading

def core(question):
    # A handler that was inherited would not be a core's own.
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    print(question, os.environ["SAID_LATE"], "vllm" in sys.modules, flush=True)
    sys.exit(7)

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
    process.join()
    print(process.exitcode, output.last_lines())

if __name__ == "__main__":
    main()
"""


def test_a_core_has_vllm_and_this_moments_environment_and_streams(tmp_path: Path) -> None:
    script = tmp_path / "controller.py"
    script.write_text(_CONTROLLER)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    said = "asked as of the start True"
    # The streams are passed on, and their last lines are kept.
    assert done.stdout.splitlines() == [said, f"7 ('{said}',)"]
