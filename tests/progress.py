"""Progress of the benchmarks and trials, on standard error."""

import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from tqdm import tqdm

T = TypeVar("T")

_TICK_SECONDS = 2.0


def counted(things: Iterable[T], name: str, total: int | None = None) -> Iterable[T]:
    """The things, one by one, with a bar that counts those that are done."""
    return tqdm(things, desc=name, total=total, dynamic_ncols=True)


def bar(name: str, total: int) -> "tqdm[NoReturn]":
    """A bar to `update` by hand."""
    return tqdm(desc=name, total=total, dynamic_ncols=True)


@contextmanager
def clock(name: str, seconds: float | None = None) -> Generator[None]:
    """A bar that counts the seconds of work that has nothing else to count."""
    shown = tqdm(
        desc=name, total=seconds, unit="s", dynamic_ncols=True, bar_format="{desc}: {elapsed}"
    )
    done = threading.Event()

    def tick() -> None:
        while not done.wait(_TICK_SECONDS):
            shown.update(_TICK_SECONDS)
            shown.refresh()

    ticking = threading.Thread(target=tick, name="progress", daemon=True)
    ticking.start()
    try:
        yield
    finally:
        done.set()
        ticking.join()
        shown.close()
