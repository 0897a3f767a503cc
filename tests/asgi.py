"""An application in a real server of this process, in a thread."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from pydantic import SecretStr

_SECONDS_TO_END = 300.0
NO_JOBS = SecretStr("")
"""The `database_url` of a server that offers no jobs. Else all in one folder share a file."""


@contextmanager
def listening(config: uvicorn.Config, *, force_exit: bool = False) -> Iterator[int]:
    """The port at which an application is served until the end of the context.

    `force_exit` ends it also where requests still wait for their answers.
    """
    server = uvicorn.Server(config)
    # It listens before the thread runs, so that nobody has to wait for it.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            server.force_exit = force_exit
            thread.join(_SECONDS_TO_END)
