"""Python whose `-m MODULE ...` begins warm, for shells and notebooks of the tests."""

import os
import signal
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[2])

from tests import warm  # noqa: E402 - found by the line above


def main() -> int:
    words = sys.argv[1:]
    if words[:1] == ["-u"]:
        del words[0]
    if words[:1] != ["-m"]:
        os.execv(sys.executable, [sys.executable, *words])
    process = warm.start(*words[1:], stdin=0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: process.send_signal(signal.Signals(number)))
    status = process.wait()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main())
