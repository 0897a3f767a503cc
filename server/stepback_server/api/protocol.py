"""HTTP/1.1 as uvicorn speaks it with h11, which bounds what a request's head may hold (64 KiB);
httptools would take any amount."""

from collections.abc import Sequence
from typing import cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

CHUNKS = "stepback.chunks"
"""Key of a scope whose response comes in chunks."""

# Two probes find a caller that has gone: the first is answered by a reset, the second meets it.
# The later ones are for slow networks, and few: a reader may count interim responses.
_PROBE_SECONDS = (0.0, 0.3, 3.0, 30.0)
_WITHOUT_PROBES_SECONDS = 1.0
_RECEIVED = (h11.DONE, h11.MUST_CLOSE)


class PatientProtocol(H11Protocol):
    """Answers a caller that has closed its sending side, as HTTP allows. Such a caller looks like
    one that hung up, until something is sent to it: so it is sent what HTTP readers pass over.

    Bad HTTP closes the connection where uvicorn's own refusal cannot be sent: a HEAD request, say,
    may have no text in its answer, and each would leave a traceback in the log.
    """

    _sends_no_more = False

    def eof_received(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Keep the connection for the answer that is due; without one, close it."""
        # uvicorn declares what it sets with the first request.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is None or cycle.response_complete or not self._is_received:
            return False
        self._sends_no_more = True
        if self.scope["http_version"] == "1.1":
            self._probe(_PROBE_SECONDS)
        else:
            self.loop.call_later(_WITHOUT_PROBES_SECONDS, self._close_if_unanswered)
        return True

    def on_response_complete(self) -> None:
        """Close the connection of a caller that can send nothing more."""
        super().on_response_complete()
        if self._sends_no_more and self.cycle.response_complete:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse bad HTTP."""
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            self.transport.close()

    @property
    def _is_received(self) -> bool:
        return self.conn.their_state in _RECEIVED

    def _probe(self, delays: Sequence[float]) -> None:
        if self.transport.is_closing() or self.cycle.response_complete:
            return
        if self.conn.our_state is h11.SEND_RESPONSE:
            again = h11.InformationalResponse(status_code=100, headers=[], reason="Continue")
            self.transport.write(self.conn.send(again))
        elif CHUNKS in self.scope:
            # A leading zero of the next chunk's size.
            self.transport.write(b"0")
        if delays[1:]:
            self.loop.call_later(delays[1] - delays[0], self._probe, delays[1:])

    def _close_if_unanswered(self) -> None:
        """HTTP/1.0 has nothing that its readers pass over: after a while it is a hang-up."""
        if self.conn.our_state is h11.SEND_RESPONSE:
            self.transport.close()
