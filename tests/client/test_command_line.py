"""The `stepback` command and the examples, as a user runs them, against the real controller."""

import codecs
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from pydantic import BaseModel

from stepback_core.schemas import Readiness
from stepback_core.tasks import CountdownProblem
from stepback_training.generators import GENERATORS
from tests import warm
from tests.client.echo import served
from tests.client.test_output import RESULT
from tests.conftest import ROOT, free_port


def run(
    *command: str | Path, encoding: str = "utf-8", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)],
        capture_output=True,
        encoding=encoding,
        timeout=500,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": encoding} | environment,
    )


def stepback(
    *arguments: str, encoding: str = "utf-8", **environment: str
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONIOENCODING": encoding} | environment
    return warm.run(warm.STEPBACK, *arguments, encoding=encoding, env=environment)


def test_solve_prints_the_steps_and_the_cost(server: str) -> None:
    done = stepback(
        "solve", "4", "16", "25", "82", "--target", "95", "--url", server, "--seed", "1"
    )
    *steps, cost = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout
    assert cost.startswith("solved: ") and "tokens" in cost
    problem = CountdownProblem(numbers=[4, 16, 25, 82], target=95)
    assert GENERATORS["countdown"].checker.check(problem, [step.strip() for step in steps]).strict


def test_an_impossible_problem_exits_with_1(server: str) -> None:
    done = stepback("solve", "1", "1", "--target", "99", "--url", server, "--tokens", "200")
    assert done.returncode == 1
    assert "unsolved" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["3", "500", "--target", "15"], "numbers.1"),
        (["3", "5", "--target", "1500"], "target"),
        (["3", "5", "--target", "15", "--breadth", "0"], "breadth"),
        (["3", "five", "--target", "15"], "five"),
        (["3", "5", "--target", "15", "--strategy", "dfs"], "dfs"),
        ([], "numbers and --target"),
        (["3", "5"], "numbers and --target"),
        (["--target", "15"], "numbers and --target"),
        (["3", "5", "--target", "15", "--prompt", "p"], "numbers and --target"),
        (["--problem", "p.json"], "numbers and --target"),
        (["--task", "maze", "--prompt", "p"], "numbers and --target"),
        (["--task", "chess", "--problem", "p.json"], "p.json"),
        (["--task", "chess", "--problem", "{"], "JSON"),
        (["--task", "maze", "--problem", '{"rows": []}'], "rows"),
        (["--task", "maze", "--problem", "/no/such/file"], "/no/such/file"),
    ],
)
def test_bad_arguments_exit_with_2_and_name_the_field(arguments: list[str], named: str) -> None:
    done = stepback("solve", *arguments)
    assert done.returncode == 2
    assert named in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("problem", "named"),
    [("{", "JSON"), ('{"rows": ["###", "#S#", "###"]}', "0 times G"), ('{"numbers": [1]}', "rows")],
)
def test_a_bad_problem_in_a_file_is_named(tmp_path: Path, problem: str, named: str) -> None:
    path = tmp_path / "problem.json"
    path.write_text(problem)
    done = stepback("solve", "--task", "maze", "--problem", str(path))
    assert done.returncode == 2
    assert named in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("written", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_problem_is_a_file_of_any_shell_or_the_fields_themselves(
    server: str, tmp_path: Path, written: str
) -> None:
    fields = '{"numbers": [4, 16, 25, 82], "target": 95}'
    path = tmp_path / "problem.json"
    path.write_text(fields, encoding=written)
    assert (written == "utf-8") == (path.read_bytes()[:2] not in (codecs.BOM_UTF16, b"\xef\xbb"))
    for problem in (str(path), fields):
        done = stepback("solve", "--task", "countdown", "--problem", problem, "--url", server)
        assert done.returncode == 0 and "solved: " in done.stdout, done.stderr


def test_a_task_that_only_the_controller_can_know_is_its_to_refuse(server: str) -> None:
    done = stepback("solve", "--task", "chess", "--problem", '{"moves": []}', "--url", server)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "chess" in line and "Traceback" not in line


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize(
    "command", [["solve"], ["solve", "--watch"], ["tree"], ["tree", "--format", "mermaid"]]
)
def test_a_narrow_output_gets_the_signs_that_it_can_show(
    server: str, command: list[str], encoding: str
) -> None:
    problem = ["4", "16", "25", "82", "--target", "95", "--seed", "1"]
    done = stepback(*command, *problem, "--url", server, encoding=encoding)
    assert done.returncode == 0, done.stderr
    assert "solved" in done.stdout and "?" not in done.stdout.replace("??", "")


@pytest.mark.parametrize("shown", ["ascii", "cp437"])
def test_a_picture_too(server: str, shown: str) -> None:
    rows = '{"rows": ["#####", "#S.G#", "#####"]}'
    maze = ["solve", "--task", "maze", "--problem", rows, "--url", server]
    assert stepback(*maze, encoding=shown).returncode in (0, 1)


def test_a_picture_of_a_plugins_task_is_printed() -> None:
    drawn = RESULT.model_copy(update={"picture": "+--+\n|<b|\n+--+"})

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = drawn.model_dump_json().encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = stepback("solve", "--task", "drawn", "--problem", "{}", "--url", url)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert "\n+--+\n|<b|\n+--+\nsolved: " in done.stdout


class _Starting(BaseHTTPRequestHandler):
    """Is ready at the third look, and answers then alone."""

    looks = 0

    def do_GET(self) -> None:
        _Starting.looks += 1
        ready = _Starting.looks >= 3
        seen = Readiness(
            ready=ready, reason="loading", searching=0, queued=0, running=0, restarts=0
        )
        self._send(200 if ready else 503, seen)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._send(200 if _Starting.looks >= 3 else 500, RESULT)

    def _send(self, status: int, what: BaseModel) -> None:
        body = what.model_dump_json().encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def test_solve_waits_for_a_controller_that_starts() -> None:
    with served(_Starting) as url:
        done = stepback("solve", "--wait", "3", "5", "--target", "15", "--url", url)
    assert done.returncode == 0, done.stderr
    assert "\nsolved: " in done.stdout


def test_solve_waits_for_a_port_that_nobody_listens_on_yet() -> None:
    port = free_port()
    answering = ThreadPoolExecutor(1).submit(
        stepback, "solve", "--wait", "3", "5", "--target", "15", "--url", f"http://127.0.0.1:{port}"
    )
    time.sleep(1.0)  # Either way it passes; this long the port is mostly asked in vain.
    _Starting.looks = 3
    with ThreadingHTTPServer(("127.0.0.1", port), _Starting) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        done = answering.result()
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert "waiting for the controller" in done.stderr


def test_an_unusable_setting_is_one_line() -> None:
    problem = ["solve", "3", "5", "--target", "15"]
    for variables in (
        {"STEPBACK_URL": "controller.internal:8000"},
        {"STEPBACK_HEADERS": "no header"},
        {"STEPBACK_API_KEY": "two words"},
        {"STEPBACK_URL": "http://controller.internal", "ALL_PROXY": "socks4://127.0.0.1:1"},
    ):
        done = stepback(*problem, **variables)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1, done.stderr


def test_a_command_without_its_packages_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['tqdm'] = sys.modules['tqdm.auto'] = None; "
        "sys.argv = ['stepback', 'errors']; import stepback_client.cli as c; sys.exit(c.main())"
    )
    done = run(sys.executable, "-c", code)
    assert done.returncode == 2
    assert "pip install 'stepback-llm[training]'" in done.stderr


def test_commands_that_only_ask_need_no_module_of_unix() -> None:
    """Windows has none of these modules."""
    for arguments, said in (
        (["batch", "--help"], "usage"),
        (["evaluate", "--help"], "usage"),
        (["errors", "--help"], "usage"),
        (["plot", "--help"], "usage"),
        (["import", "--help"], "usage"),
        (["train", "--recipe", "r", "--data", "d", "--out", "o"], "training needs Linux"),
        (["serve"], "serve: it needs Linux"),
        (["engine"], "engine: it needs Linux"),
    ):
        code = (
            "import signal, sys; sys.modules.update(fcntl=None, pwd=None, resource=None); "
            "del signal.SIGHUP; "
            f"sys.argv = ['stepback', *{arguments}]; "
            "import stepback_client.cli as c; sys.exit(c.main())"
        )
        done = run(sys.executable, "-c", code)
        assert said in done.stdout + done.stderr, (arguments, done.stderr)


def test_a_module_that_this_system_lacks_is_no_package_to_install() -> None:
    code = (
        "import sys; sys.modules['tomllib'] = None; "
        "sys.argv = ['stepback', 'data']; import stepback_client.cli as c; sys.exit(c.main())"
    )
    done = run(sys.executable, "-c", code)
    assert done.returncode == 2
    assert "needs Linux" in done.stderr and "pip install" not in done.stderr


def test_a_prompt_is_answered_without_a_checker(server: str) -> None:
    done = stepback(
        "solve", "--prompt", "countdown:4,16,25,82=95", "--tokens", "200", "--url", server
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "unverified" in done.stdout


def test_no_server_is_said_in_one_line() -> None:
    done = stepback("solve", "3", "5", "--target", "15", "--url", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert "POST /solve" in line


def test_an_unknown_command_is_refused() -> None:
    done = stepback("sovle")
    assert done.returncode == 2
    assert "usage: stepback" in done.stderr


@pytest.mark.parametrize("example", ["solve.py", "solve_many.py", "stream.py", "stream_async.py"])
def test_the_examples_run(server: str, example: str) -> None:
    done = run(sys.executable, ROOT / "client/examples" / example, server)
    assert done.returncode == 0, done.stderr
    assert "solved" in done.stdout.replace("unsolved", "")


def test_the_shell_example_runs(server: str) -> None:
    done = run(ROOT / "client/examples/solve.sh", server)
    assert done.returncode == 0, done.stderr
    assert '"status"' in done.stdout
