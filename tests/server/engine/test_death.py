"""Report of an engine's end: the words, and the lines that its processes wrote."""

import os
import subprocess
import sys

import pytest

from stepback_server.engine.death import Death, cause_of, core_report, failed_cores, reported_cause
from stepback_server.engine.output import Output


@pytest.mark.parametrize(
    ("status", "cause"),
    [(0, "ended with status 0"), (7, "ended with status 7"), (-4, "killed by SIGILL")],
)
def test_an_exit_status_is_named_and_read_back(status: int, cause: str) -> None:
    assert cause_of(status) == cause
    assert reported_cause(f"much\n{core_report(status)}\nmore") == cause


def test_a_signal_without_a_name_has_its_number() -> None:
    assert cause_of(-40) == "killed by signal 40"


def test_vllms_own_account_of_a_failed_start_is_read() -> None:
    assert failed_cores("See above. Failed core proc(s): {'EngineCore': -4}") == "killed by SIGILL"
    assert failed_cores("Failed core proc(s): {}") == "ended"
    assert failed_cores("No available memory") is reported_cause("the engine core") is None


def test_a_death_is_one_line() -> None:
    assert str(Death("killed by SIGILL", ("a", "b"))) == "killed by SIGILL; its last lines: a | b"
    assert str(Death("ended with status 1")) == "ended with status 1"


def test_the_output_of_children_is_passed_on_and_its_end_kept(
    capfd: pytest.CaptureFixture[str],
) -> None:
    # The two streams are read apart, so the order is certain within one of them alone.
    script = (
        "import os\nprint('out', flush=True)\n"
        "os.write(2, b''.join(b'%d\\n' % n for n in range(20)) + 'é'.encode() * 999 + b'\\nno end')"
    )
    output = Output()
    with output.capture():
        child = subprocess.Popen([sys.executable, "-c", script])
    child.wait()
    kept = output.last_lines()
    os.write(1, b"our own\n")
    written, errors = capfd.readouterr()
    assert errors.split()[:20] == [str(number) for number in range(20)]
    assert written == "out\nour own\n" and errors.endswith("no end")
    assert len(kept) == 8 and {"19", "no end"} <= set(kept)
    assert max(map(len, kept)) == 500
    assert "our own" not in kept
