"""A server over real sockets that answers each question with an error that repeats it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Server(ThreadingHTTPServer):
    request_queue_size = 64


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    refusal = 422, "c"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, code = self.refusal
        detail = {"type": "invalid_request", "code": code, "message": body["prompt"]}
        answer = json.dumps({"error": detail}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def echo(status: int = 422, code: str = "c") -> Iterator[str]:
    """Its URL."""
    with served(type("_Echo", (_Echo,), {"refusal": (status, code)})) as url:
        yield url


@contextmanager
def served(kind: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL of a server that answers by this handler."""
    with _Server(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
