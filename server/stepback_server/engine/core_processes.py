"""vLLM's engine cores: child processes that vLLM starts, and does not hand out."""

import multiprocessing
import threading
import time
from multiprocessing.process import BaseProcess

_POLL_SECONDS = 0.05
# A core that has closed its connections may still be writing a core dump.
_STATUS_SECONDS = 5.0


class CoreProcesses:
    """The engine cores that this process starts, from now on until `stop`."""

    def __init__(self) -> None:
        self._processes: dict[int, BaseProcess] = {}
        self._stopped = threading.Event()
        # From outside: vLLM blocks in the thread that starts it, until the core is up or dead.
        threading.Thread(target=self._gather, name="engine-cores", daemon=True).start()

    def stop(self) -> None:
        """Look for no more of them."""
        self._stopped.set()
        self._look()

    def kill(self) -> None:
        for process in self._processes.values():
            process.kill()

    def status(self) -> int | None:
        """The exit status of one that has ended, minus the signal if it was killed; None while
        all live."""
        statuses = (process.exitcode for process in self._processes.values())
        return next((status for status in statuses if status is not None), None)

    def final_status(self, seconds: float = _STATUS_SECONDS) -> int | None:
        """The same, of one that is about to end; blocks for that."""
        deadline = time.monotonic() + seconds
        while (status := self.status()) is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return status

    def _gather(self) -> None:
        while not self._stopped.wait(_POLL_SECONDS):
            self._look()

    def _look(self) -> None:
        # A copy, or a thread that reads meanwhile would find it changing.
        found = {
            child.pid: child
            for child in multiprocessing.active_children()
            if child.pid is not None and child.name.startswith("EngineCore")
        }
        self._processes = self._processes | found
