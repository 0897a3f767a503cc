"""An engine comes and one goes by DNS under load: `python -m tests.trials.discovery`.

No search may fail, and the load has to follow in ten seconds: half of it to the engine that came,
and all of it away from the one that went. The engines answer at once, the resolver reads a file.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.conftest import free_port
from tests.server.engine.test_discovery import LOCAL, Load, answering, resolved_controller
from tests.trials.base import verdict

LONGEST = 10.0
WINDOW = 0.5
FAIR = 0.4
"""The part of the load that is near enough to half of it."""


class Engines:
    """Two engines under one name, and how the searches are spread over them."""

    def __init__(self, port: int) -> None:
        self._urls = [f"http://{host}:{port}/told" for host in LOCAL]

    def share_of_the_second(self) -> float:
        """The part of the searches of a moment that the second engine had."""
        before = self._searches()
        time.sleep(WINDOW)
        first, second = (now - old for now, old in zip(self._searches(), before, strict=True))
        return second / max(1, first + second)

    def _searches(self) -> list[int]:
        return [int(httpx.get(url, timeout=60).json()["searches"]) for url in self._urls]


def seconds_until(condition: Callable[[], bool]) -> float:
    """The seconds until a condition holds; a moment that is looked at counts in full."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > 12 * LONGEST:
            raise TimeoutError("the load does not follow")
    return time.monotonic() - began


def measure(turns: int) -> tuple[list[float], list[float], set[int]]:
    """The seconds after which the load followed an engine that came, and one that went."""
    came, went, port = list[float](), list[float](), free_port()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        addresses = folder / "addresses"
        addresses.write_text(LOCAL[0])
        for host in LOCAL:
            stack.enter_context(answering(host, port, folder / f"{host}.txt"))
        url = stack.enter_context(resolved_controller(addresses, port, folder / "log.txt"))
        engines = Engines(port)
        with Load(url) as load:
            for _ in range(turns):
                addresses.write_text(" ".join(LOCAL))
                came.append(seconds_until(lambda: engines.share_of_the_second() >= FAIR))
                addresses.write_text(LOCAL[1])
                went.append(seconds_until(lambda: engines.share_of_the_second() == 1))
                addresses.write_text(LOCAL[0])
                seconds_until(lambda: engines.share_of_the_second() == 0)
    return came, went, load.statuses


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=5)
    came, went, statuses = measure(parser.parse_args().turns)
    return verdict(
        "discovery",
        f"the load followed an engine that came in {_said(came)} s, one that went in "
        f"{_said(went)} s; statuses {sorted(statuses)}",
        logged=[],
        no_search_failed=statuses == {200},
        the_load_follows=max(*came, *went) <= LONGEST,
    )


def _said(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} (at most {max(seconds):.1f})"


if __name__ == "__main__":
    sys.exit(main())
