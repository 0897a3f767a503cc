"""Times of answers that are asked for at fixed times."""

import threading
import time

from tests.probing import answer_times


def test_a_pause_is_seen_by_every_question_that_fell_into_it() -> None:
    """One that waits for its answer before it asks again would see it once."""
    pause = 0.5
    asked, begun = 0, time.monotonic()
    lock = threading.Lock()

    def ask() -> None:
        nonlocal asked
        with lock:
            asked += 1
        # The server stands still until half a second after the start.
        time.sleep(max(0.0, begun + pause - time.monotonic()))

    def is_over() -> bool:
        return time.monotonic() > begun + 2 * pause

    seconds = answer_times(ask, is_over, every=0.01, at_once=4)
    assert len(seconds) == asked
    assert sum(each > pause / 2 for each in seconds) > 15
