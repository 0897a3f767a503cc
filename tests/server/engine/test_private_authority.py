"""An engine behind TLS whose certificate an authority of one's own has signed."""

import http.server
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_ASK = """
import sys
from stepback_server.engine.base import EngineError
from stepback_server.engine.handshake import ExpectedServer
expected = ExpectedServer(model="m", context_tokens=256, api_key=None, connections=1)
try:
    print(expected.check_server(sys.argv[1]))
except EngineError as error:
    print(error)
"""


class _Engine(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        models = {"data": [{"id": "m", "max_model_len": 256}]}
        body = json.dumps(models if self.path == "/v1/models" else {"version": "7"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(certificate: Path | None = None, key: Path | None = None) -> Iterator[int]:
    """The port of an engine, with TLS where it has a certificate."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Engine)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join(timeout=300)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[str]:
    """Its address; the certificate is in ca.pem."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "ca.pem")]
    subprocess.run(command, check=True, capture_output=True)
    with serving(tmp_path / "ca.pem", tmp_path / "key.pem") as port:
        yield f"https://localhost:{port}"


def answer(url: str, **environment: str) -> str:
    """Run in a process of its own: an environment is read once."""
    done = subprocess.run(
        [sys.executable, "-c", _ASK, url],
        env={name: text for name, text in os.environ.items() if not name.startswith("SSL_CERT_")}
        | environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=True,
    )
    return done.stdout.strip()


def test_an_authority_that_ssl_cert_file_names_is_trusted(engine: str, tmp_path: Path) -> None:
    assert answer(engine, SSL_CERT_FILE=str(tmp_path / "ca.pem")) == "7"


def test_a_folder_of_authorities_is_obeyed_too(engine: str, tmp_path: Path) -> None:
    named = ["openssl", "x509", "-hash", "-noout", "-in", str(tmp_path / "ca.pem")]
    found = subprocess.run(named, check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / "authorities").mkdir()
    shutil.copy(tmp_path / "ca.pem", tmp_path / "authorities" / f"{found}.0")
    assert answer(engine, SSL_CERT_DIR=str(tmp_path / "authorities")) == "7"


def test_a_file_that_cannot_be_used_is_named_and_does_no_harm_without_tls(engine: str) -> None:
    for path in ("/no/such.pem", __file__):
        assert "SSL_CERT_FILE" in answer(engine, SSL_CERT_FILE=path)
    with serving() as port:
        assert answer(f"http://127.0.0.1:{port}", SSL_CERT_FILE="/no/such.pem") == "7"


def test_a_certificate_that_is_not_trusted_ends_the_start_with_what_to_do(engine: str) -> None:
    said = answer(engine)
    assert "its certificate is not trusted" in said and "SSL_CERT_FILE" in said
