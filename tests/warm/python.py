"""Python whose `-m MODULE ...` begins warm, for shells and notebooks of the tests; behind `--code`
its `-c CODE ...`, for the processes that share the tests."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[2])

from tests import warm  # noqa: E402 - found by the line above

_PASSED_ON = (signal.SIGINT, signal.SIGTERM)


def main() -> int:
    words = sys.argv[1:]
    begins_warm = "-m"
    if words[:1] == [warm.CODE]:
        begins_warm = "-c"
        del words[0]
    if words[:1] == ["-u"]:
        # Its output comes at its end, which no test here minds.
        del words[0]
    if words[:1] != [begins_warm]:
        os.execv(sys.executable, [sys.executable, *words])
    # What comes before the command begins is for the command, too.
    early = list[int]()
    for number in _PASSED_ON:
        signal.signal(number, lambda number, _: early.append(number))
    process = warm.start_python(*words, stdin=0)
    handle = os.pidfd_open(process.pid)

    def pass_on(number: int, _: Any) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)

    for number in _PASSED_ON:
        signal.signal(number, pass_on)
    for number in early:
        pass_on(number, None)
    status = process.wait()
    if status < 0:
        with suppress(OSError):  # SIGKILL has no handler.
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main())
