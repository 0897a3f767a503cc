"""The health checks of the images and of the stack, run as a container would run them."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from tests.conftest import ROOT

_IN_IMAGES = re.findall(
    r"^HEALTHCHECK .*\\\n\s*(\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
)
_SERVICES = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
COMMANDS = [
    *(json.loads(text)[2] for text in _IN_IMAGES),
    *(
        one["healthcheck"]["test"][3]
        for one in _SERVICES.values()
        # PostgreSQL has a check of its own, over no HTTP.
        if "healthcheck" in one and one["healthcheck"]["test"][2] == "-c"
    ),
]


class _Answer(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_every_image_and_every_part_of_the_stack_is_checked() -> None:
    assert len(_IN_IMAGES) == 2 and len(COMMANDS) == 6


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
@pytest.mark.parametrize(("status", "is_well"), [(200, True), (503, False)])
def test_loopback_is_asked_directly_whatever_proxy_docker_puts_into_the_container(
    server: ThreadingHTTPServer,
    command: str,
    status: int,
    is_well: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_Answer, "status", status)
    assert "8000" in command
    proxies = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", command.replace("8000", str(server.server_port))],
        env=os.environ | proxies, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode == 0) == is_well


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_nothing_that_listens_is_not_well(command: str) -> None:
    command = command.replace("8000", "9")
    assert subprocess.run(
        [sys.executable, "-c", command], capture_output=True, timeout=300
    ).returncode
