"""Hostile checkers in real worker processes: each costs its own call, and nothing else."""

import os
import resource
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from stepback_core.errors import InvalidInput
from stepback_core.isolation import CheckerFailure, FailureKind, IsolatedChecker, Limits, Worker
from stepback_core.isolation.calls import answer
from stepback_core.isolation.confinement import Confinement
from stepback_core.isolation.host import READY
from tests.plugins import install, install_hostile
from tests.plugins.hostile import Hostile

RIGHT = ["16-4=12", "25-12=13", "82+13=95"]
PROBLEM: dict[str, Any] = {"numbers": [4, 16, 25, 82], "target": 95}
MISDEEDS = {
    "loop": FailureKind.TIMEOUT,
    "exit": FailureKind.CRASHED,
    "memory": FailureKind.RAISED,
    "socket": FailureKind.FORBIDDEN,
    "fork": FailureKind.FORBIDDEN,
    "__import__('os').system('touch WHERE')": FailureKind.FORBIDDEN,
}
OTHERS = {
    "raise": FailureKind.RAISED,
    "sleep": FailureKind.TIMEOUT,
    "__import__('ctypes').CDLL(None).fork()": FailureKind.RAISED,
    "__import__('_socket').socket()": FailureKind.FORBIDDEN,
    "__import__('os').kill(__import__('os').getppid(), 9)": FailureKind.FORBIDDEN,
    "open('WHERE', 'w')": FailureKind.RAISED,
    "__import__('os').unlink('WHERE')": FailureKind.RAISED,
    "open(f'/proc/{__import__(\"os\").getppid()}/environ').read()": FailureKind.RAISED,
    "__import__('resource').setrlimit(0, (-1, -1))": FailureKind.RAISED,
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IsolatedChecker]:
    """The hostile checker in its worker; its calls may take longer than they need anywhere."""
    folder = install_hostile(tmp_path_factory.mktemp("hostile"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv("STEPBACK_SECRET_OF_THIS_TEST", "hidden")
        worker = Worker("hostile", Limits(seconds=5.0, memory_bytes=512 << 20))
        try:
            yield IsolatedChecker(worker)
        finally:
            worker.close()


def ask(checker: IsolatedChecker, do: str = "") -> Future[dict[str, Any]]:
    call = {"do": "review", "problem": PROBLEM | {"do": do}, "answers": [RIGHT], "states": []}
    return checker.worker.submit(call)


def verdicts(asked: Future[dict[str, Any]]) -> object:
    return asked.result(timeout=300)["verdicts"]


@pytest.mark.parametrize("do", [*MISDEEDS, *OTHERS])
def test_a_misdeed_costs_its_own_call_and_no_other(
    hostile: IsolatedChecker, tmp_path: Path, do: str
) -> None:
    target = tmp_path / "file"
    starts = hostile.worker.starts
    wrong = ask(hostile, do.replace("WHERE", str(target)))
    at_the_same_time = [ask(hostile) for _ in range(3)]
    with pytest.raises(CheckerFailure) as failed:
        wrong.result(timeout=300)
    assert failed.value.kind is (MISDEEDS | OTHERS)[do], failed.value
    assert [verdicts(each) for each in at_the_same_time] == [[[True, True, None]]] * 3
    assert hostile.worker.starts == starts and not target.exists()


def test_what_a_call_changes_in_memory_ends_with_it(hostile: IsolatedChecker) -> None:
    assert verdicts(ask(hostile, "cheat")) == [[True, True, None]]
    wrong = hostile.check(hostile.example, ["4+16=20"])
    assert wrong.strict is False and wrong.reason == "not_reached"


def test_what_a_checker_prints_is_no_answer(hostile: IsolatedChecker) -> None:
    assert verdicts(ask(hostile, "babble")) == [[True, True, None]]


def test_a_worker_has_no_secret_of_its_parent(hostile: IsolatedChecker) -> None:
    running = hostile.worker.process_id
    assert running is not None
    environment = psutil.Process(running).environ()
    assert "STEPBACK_SECRET_OF_THIS_TEST" not in environment and "PATH" in environment


def test_no_process_is_left_of_a_call_that_was_killed(hostile: IsolatedChecker) -> None:
    running = hostile.worker.process_id
    assert running is not None
    waiting = {child.pid for child in psutil.Process(running).children()}
    asked = ask(hostile, "sleep")
    with pytest.raises(CheckerFailure, match="no answer within 5 s"):
        asked.result(timeout=300)
    left = psutil.Process(running).children(recursive=True)
    assert len(waiting) == len(left) == READY
    assert len({child.pid for child in left} - waiting) == 1


def test_verdicts_before_a_failure_are_told(hostile: IsolatedChecker) -> None:
    call = {
        "do": "review",
        "problem": PROBLEM | {"do": "exit at 4+16"},
        "answers": [RIGHT, ["25+16=41"], ["4+16=20"], RIGHT],
        "states": [],
    }
    with pytest.raises(CheckerFailure) as failed:
        hostile.worker.submit(call).result(timeout=300)
    assert failed.value.kind is FailureKind.CRASHED
    assert failed.value.verdicts == [[True, True, None], [False, False, "not_reached"]]


def test_a_call_yields_for_what_it_works_and_not_for_what_it_waits(
    hostile: IsolatedChecker,
) -> None:
    # A worker of its own, for calls that are never answered.
    worker = Worker("hostile", Limits(seconds=600))
    try:
        checker = IsolatedChecker(worker)
        assert verdicts(ask(checker)) == [[True, True, None]]
        ask(checker, "sleep")
        ask(checker, "loop")
        assert worker.process_id is not None
        host, deadline = psutil.Process(worker.process_id), time.monotonic() + 300
        while 19 not in (found := [child.nice() for child in host.children()]):
            assert time.monotonic() < deadline, found
            time.sleep(0.1)
        time.sleep(1)
        # Not the one that sleeps, nor those that wait for a call.
        assert [child.nice() for child in host.children()].count(19) == 1
    finally:
        worker.close()


def test_each_call_has_a_process_of_its_own(hostile: IsolatedChecker) -> None:
    do = "{}[__import__('os').getpid()]"
    said = set[str]()
    for _ in range(5):
        with pytest.raises(CheckerFailure, match="KeyError") as failed:
            ask(hostile, do).result(timeout=300)
        said.add(str(failed.value))
    assert len(said) == 5


def test_the_checker_has_the_interface_of_one_in_process(hostile: IsolatedChecker) -> None:
    here, problem = Hostile(), hostile.example
    assert hostile.prompt(problem) == here.prompt(Hostile.example)
    assert hostile.check(problem, RIGHT) == here.check(Hostile.example, RIGHT)
    assert hostile.check(problem, ["x"]) == here.check(Hostile.example, ["x"])
    one, same, other = (
        hostile.state_key(problem, steps) for steps in (["4+16=20"], ["16+4=20"], ["25+16=41"])
    )
    assert one == same != other and hostile.state_key(problem, ["4+4=8"]) is None
    assert hostile.problem_type.model_json_schema() == Hostile.problem_type.model_json_schema()


def test_a_worker_that_ends_is_started_again(hostile: IsolatedChecker) -> None:
    starts, running = hostile.worker.starts, hostile.worker.process_id
    assert running is not None
    os.kill(running, signal.SIGKILL)
    deadline = time.monotonic() + 300
    while hostile.check(hostile.example, RIGHT).strict is not True:
        assert time.monotonic() < deadline
    assert hostile.worker.starts == starts + 1


def test_a_worker_that_always_ends_is_left_alone_for_longer_each_time(tmp_path: Path) -> None:
    source = "import os\nos._exit(1)\n"
    folder = install(tmp_path, "broken", {"stepback.tasks": {"broken": "broken:Broken"}}, source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        worker = Worker("broken")
        try:
            for _ in range(2):
                with pytest.raises(CheckerFailure, match="checker_unavailable"):
                    worker.submit({}).result(timeout=300)
            started = worker.starts
            with pytest.raises(CheckerFailure, match="it is tried again in"):
                for _ in range(100):
                    worker.submit({}).result(timeout=300)
            assert worker.starts <= started + 1
        finally:
            worker.close()


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("Broken = 1 / 0", "cannot be loaded .ZeroDivisionError"),
        ("import sys; sys.exit(3)", "cannot be loaded .SystemExit"),
        ("Broken = dict", "is no checker"),
        ("from tests.plugins.hostile import Hostile as Broken", "calls itself 'hostile'"),
        (
            "from tests.plugins.hostile import Hostile\n"
            "class Broken(Hostile):\n    name = 'broken'\n    def prompt(self, problem): return 3",
            "prompt that is no text: 3",
        ),
        (
            "from tests.plugins.hostile import Hostile\n"
            "class Broken(Hostile):\n    name = 'broken'\n"
            "    def check(self, problem, steps): return True",
            "check that gives no Verdict: True",
        ),
    ],
)
def test_a_plugin_that_breaks_the_interface_is_named_in_one_line(
    tmp_path: Path, source: str, fault: str
) -> None:
    folder = install(tmp_path, "broken", {"stepback.tasks": {"broken": "broken:Broken"}}, source)
    with pytest.MonkeyPatch.context() as patch:
        root = Path(__file__).parents[2]
        patch.setenv("PYTHONPATH", f"{folder}:{root}")
        worker = Worker("broken")
        try:
            with pytest.raises(InvalidInput, match=f"broken .broken 0.1. .*{fault}") as error:
                worker.start()
            assert "\n" not in str(error.value)
        finally:
            worker.close()


def test_a_worker_starts_where_many_files_are_open(hostile: IsolatedChecker) -> None:
    """A server with a thousand callers has descriptors that select(2) does not take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with ExitStack() as files:
            for _ in range(1100):
                files.enter_context(open(os.devnull, "rb"))
            worker = Worker("countdown-of-many", Limits(seconds=5.0))
            with pytest.raises(InvalidInput, match=r"installed: .*hostile"):
                worker.start()
            worker.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_name_that_nobody_has_is_refused_with_those_that_are_installed() -> None:
    worker = Worker("nonsense")
    try:
        with pytest.raises(InvalidInput, match="has a task 'nonsense'; installed: "):
            worker.start()
    finally:
        worker.close()


def test_the_filter_of_system_calls_holds_without_the_hook() -> None:
    """A fork past Python's own functions: by the kernel alone, where it can."""
    child = os.fork()
    if child == 0:
        confinement = Confinement.prepare(1 << 30, 5.0)
        if not confinement.has_call_filter:
            os._exit(77)
        libc = confinement.calls.libc
        confinement.calls.put_on()
        libc.fork()
        os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 77:
        pytest.skip("this kernel takes no filter")
    assert status == -signal.SIGSYS


def test_a_problem_of_another_form_is_told_as_pydantic_tells_it() -> None:
    call = {"do": "read", "problem": {"numbers": [1, 2]}}
    [error] = answer(Hostile(), call)["invalid"]
    assert error["type"] == "missing" and list(error["loc"]) == ["target"]
