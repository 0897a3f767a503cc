"""HTTP/1.1 as uvicorn speaks it with h11, which bounds what a request's head may hold (64 KiB);
httptools would take any amount."""

from h11 import LocalProtocolError
from uvicorn.protocols.http.h11_impl import H11Protocol


class QuietProtocol(H11Protocol):
    """Closes the connection where uvicorn's own refusal of bad HTTP cannot be sent: a HEAD request,
    say, may have no text in its answer, and each would leave a traceback in the log."""

    def send_400_response(self, msg: str) -> None:
        try:
            super().send_400_response(msg)
        except LocalProtocolError:
            self.transport.close()
