"""A server that `stepback engine` keeps, in a real child process: one of our own, and vLLM's."""

import asyncio
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from stepback_server.checkpoint import Checkpoint
from stepback_server.commands.engine import own_url, patience
from stepback_server.engine.base import EngineUnavailable
from stepback_server.engine.death import Death
from stepback_server.engine.handshake import ExpectedServer
from stepback_server.engine.remote import RemoteEngine
from stepback_server.engine.supervisor import HealthCheckConfig, Supervisor, canary
from stepback_server.engine.vllm_process import ChildEngine, Serve, ServerProcess, VllmLauncher
from stepback_server.settings import Settings
from tests import warm
from tests.conftest import (
    CHECKPOINT,
    free_port,
    wait_until_ok,
)
from tests.process_tree import children, cores_below, descendants, title

EXPECTED = ExpectedServer(model="m", context_tokens=16, api_key=None, connections=4)
SERVERS = ("spawn_main", "VLLM::Server")
QUICK = HealthCheckConfig(
    between_checks=0.05,
    between_canaries=0.1,
    canary_deadline=0.5,
    first_backoff=0.01,
    longest_backoff=0.05,
)


# --- served in a child ---


def serve_well(flags: Sequence[str]) -> None:
    """Stand-in for vLLM, with as much of it as a supervisor looks at. flags: its port."""
    uvicorn.run(_app(), port=int(flags[0]), log_level="error")


def serve_in_a_process_below(flags: Sequence[str]) -> None:
    """Start a child as vLLM does its engine core: it outlives a parent that is killed."""
    below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(flags[1]).write_text(str(below.pid))
    serve_well(flags)


def fail(flags: Sequence[str]) -> None:
    sys.stderr.write("there is no such model\n")
    sys.exit(7)


def meet_an_illegal_instruction(flags: Sequence[str]) -> None:
    """Die as an engine does whose processor lacks an instruction."""
    sys.stderr.write("the last word\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGILL)


def serve_until_the_core_dies(flags: Sequence[str]) -> None:
    """Serve, with a core as vLLM has it, which ends by itself once a file is there."""
    context = multiprocessing.get_context("spawn")
    context.Process(target=_be_a_core, args=(flags[1],), name="EngineCore").start()
    serve_well(flags)


def _be_a_core(sign: str) -> None:
    while not Path(sign).exists():
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGSEGV)


def load_forever(flags: Sequence[str]) -> None:
    time.sleep(600)


def _app() -> Starlette:
    async def complete(request: Request) -> Response:
        chunk = {"index": 0, "token_ids": [2], "finish_reason": "length"}
        chunk["logprobs"] = {"token_logprobs": [-1.0], "top_logprobs": [{}]}
        lines = [f"data: {json.dumps({'choices': [chunk]})}\n\n", "data: [DONE]\n\n"]
        return StreamingResponse(iter(lines), media_type="text/event-stream")

    async def models(request: Request) -> Response:
        return JSONResponse({"data": [{"id": "m", "max_model_len": 16}]})

    async def nothing(request: Request) -> Response:
        return Response()

    return Starlette(
        routes=[
            Route("/v1/completions", complete, methods=["POST"]),
            Route("/v1/models", models),
            Route("/metrics", nothing),
            Route("/health", nothing),
        ]
    )


# --- the tests ---


def launcher_of(serve: Serve, *flags: str) -> tuple[VllmLauncher, str]:
    port = free_port()
    url = own_url("0.0.0.0", port)
    return VllmLauncher(serve, [str(port), *flags], url, EXPECTED), url


def lives(pid: int) -> bool:
    """True if a process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - of another process
        await asyncio.sleep(0.02)


def supervised(
    launcher: VllmLauncher, url: str, scenario: Callable[[Supervisor], Coroutine[Any, Any, None]]
) -> None:
    async def run() -> None:
        supervisor = Supervisor(launcher.start, canary(2), QUICK, name=url)
        running = asyncio.create_task(supervisor.run())
        try:
            async with asyncio.timeout(120):
                await until(lambda: supervisor.up == 1)
                await scenario(supervisor)
        finally:
            launcher.give_up()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())


def servers_below(pid: int) -> list[int]:
    """The servers among the children of a process, whatever else those are."""
    return [child for child in children(pid) if any(name in title(child) for name in SERVERS)]


def server_below(pid: int) -> int:
    [server] = servers_below(pid)
    return server


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_is_lost_is_replaced_and_nothing_is_left_of_it(
    tmp_path: Path, fault: signal.Signals
) -> None:
    note = tmp_path / "below.txt"
    launcher, url = launcher_of(serve_in_a_process_below, str(note))

    async def scenario(supervisor: Supervisor) -> None:
        first, below = server_below(os.getpid()), int(note.read_text())
        os.kill(first, fault)
        await until(lambda: supervisor.restarts == 1)
        assert not lives(first) and not lives(below)
        assert server_below(os.getpid()) != first and lives(int(note.read_text()))

    supervised(launcher, url, scenario)
    assert not lives(int(note.read_text()))


def test_a_first_start_that_ends_by_itself_is_raised_with_its_status_and_its_words() -> None:
    launcher, url = launcher_of(fail)
    with pytest.raises(EngineUnavailable) as died:
        asyncio.run(Supervisor(launcher.start, canary(2), QUICK, name=url).run())
    assert died.value.death == Death("ended with status 7", ("there is no such model",))


def test_starts_that_die_of_the_same_signal_are_tried_three_times() -> None:
    launcher, url = launcher_of(meet_an_illegal_instruction)
    starts = 0

    def start() -> ChildEngine:
        nonlocal starts
        starts += 1
        return launcher.start()

    with pytest.raises(EngineUnavailable) as died:
        asyncio.run(Supervisor(start, canary(2), QUICK, name=url).run())
    assert starts == 3
    assert died.value.death == Death("killed by SIGILL", ("the last word",))


def test_a_server_whose_core_dies_says_of_which_signal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    sign = tmp_path / "die.txt"
    launcher, url = launcher_of(serve_until_the_core_dies, str(sign))

    async def scenario(supervisor: Supervisor) -> None:
        server = server_below(os.getpid())
        sign.touch()
        # The report comes first, and then the server ends of it, as vLLM's does.
        await until(lambda: "SIGSEGV" in capfd.readouterr().err)
        os.kill(server, signal.SIGTERM)
        # The log keeps it, where the next start may have another reason already.
        await until(lambda: "is lost: the engine has died: killed by SIGSEGV" in caplog.text)
        sign.unlink()

    supervised(launcher, url, scenario)


class Gone:
    """A server that has ended: nobody answers at its address."""

    version = "0"

    async def sample(self, *_: object) -> None:
        raise EngineUnavailable("it cannot be reached")

    check = running = progress = sample


@pytest.mark.parametrize(
    ("asked", "given"),
    [("check", ()), ("running", ()), ("progress", ()), ("sample", (None, None, None))],
)
def test_whatever_notices_an_end_names_its_signal(asked: str, given: tuple[None, ...]) -> None:
    process = ServerProcess(meet_an_illegal_instruction, ["0"])
    engine = ChildEngine(Gone(), process)  # pyright: ignore[reportArgumentType]
    try:
        # On a slow machine it takes longer to begin than an end is waited for.
        deadline = time.monotonic() + 300
        while not process.has_ended and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(EngineUnavailable, match="killed by SIGILL"):
            asyncio.run(getattr(engine, asked)(*given))
    finally:
        process.kill()


def test_a_start_that_is_given_up_leaves_nothing_behind() -> None:
    launcher, _ = launcher_of(load_forever)

    async def scenario() -> None:
        running = asyncio.create_task(Supervisor(launcher.start, canary(2), QUICK).run())
        await until(lambda: bool(servers_below(os.getpid())))
        launcher.give_up()
        running.cancel()
        async with asyncio.timeout(120):
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())
    assert not servers_below(os.getpid())


def test_a_server_that_has_ended_is_lost_whatever_answers_in_its_place() -> None:
    async def scenario() -> None:
        launcher, _ = launcher_of(serve_well)
        server = await asyncio.to_thread(launcher.start)
        await server.check()
        os.kill(server_below(os.getpid()), signal.SIGKILL)
        with pytest.raises(EngineUnavailable):
            while True:
                await server.check()
        assert isinstance(server, ChildEngine)
        await server.close(kill=True)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("10.0.0.7", "http://10.0.0.7:80"),
        ("engine", "http://engine:80"),
    ],
)
def test_a_server_is_watched_where_this_machine_reaches_it(host: str, url: str) -> None:
    assert own_url(host, 80) == url


def test_a_server_that_takes_new_weights_may_stand_still_for_as_long_as_they_load() -> None:
    assert patience({}).canary_deadline == 10
    assert (
        patience({"VLLM_SERVER_DEV_MODE": "1"}).canary_deadline
        == HealthCheckConfig().reload_deadline
    )


def test_a_port_that_is_taken_is_refused() -> None:
    """Whatever listens there would be mistaken for the command's own server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        refused = warm.stepback("engine", "--port", port)
    assert refused.returncode == 2
    assert refused.stderr.startswith("stepback engine: STEPBACK_HOST, STEPBACK_PORT: cannot listen")


_COUNTS = """
import os, sys
from stepback_server.commands import engine as command

def count(*_):
    print(len(os.listdir("/proc/self/task")))
    sys.exit()

command.start_fork_server = count
command.engine(["--port", "0"])
"""


def test_the_command_has_one_thread_when_it_is_about_to_fork() -> None:
    """In a new Python: where vLLM is imported before, a tokenizer starts no threads."""
    plain = {name: at for name, at in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run(
        [sys.executable, "-c", _COUNTS], env=plain, capture_output=True, text=True, check=False
    )
    assert done.stdout == "1\n", done.stderr


@pytest.mark.timeout(900)
def test_vllms_server_with_a_stopped_core_is_replaced_and_dies_with_the_command(
    tmp_path: Path,
) -> None:
    log, port = tmp_path / "log.txt", free_port()
    flags = ["--model", str(CHECKPOINT), "--port", str(port)]
    with log.open("w") as output:
        command = warm.start(warm.STEPBACK, "engine", *flags, stdout=output, stderr=output)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ok(f"{url}/health", command, log)
        wait_until_said(log, f"{url} is up", 1)
        first = core_below(command.pid)
        os.kill(first, signal.SIGSTOP)
        wait_until_said(log, f"{url} is lost: {url} hangs", 1)
        wait_until_said(log, f"{url} is up", 2)
        core = core_below(command.pid)
        assert core != first and not lives(first)
        expected = ExpectedServer.of(Checkpoint.open(CHECKPOINT), Settings.read({}))
        assert RemoteEngine.connect(url, expected).version != "unknown"
        # Each server and each core was forked: none has imported vLLM anew.
        family = descendants(command.pid)
        titles = [title(each) for each in family]
        for name, count in (("VLLM::ForkServer", 2), ("VLLM::Server", 1), ("spawn_main", 0)):
            assert sum(name in each for each in titles) == count, titles
        said = log.read_text()
        assert "no fork server" not in said and "found in sys.modules" not in said
        command.kill()
        command.wait()
        deadline = time.monotonic() + 300
        while any(map(lives, family)):
            assert time.monotonic() < deadline, "a process outlives the command"
            time.sleep(0.05)
    finally:
        command.kill()
        command.wait()


def core_below(pid: int) -> int:
    [core] = cores_below(pid)
    return core


def wait_until_said(log: Path, words: str, times: int) -> None:
    """Wait until a log has said something that often."""
    deadline = time.monotonic() + 500
    while log.read_text().count(words) < times:
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)
