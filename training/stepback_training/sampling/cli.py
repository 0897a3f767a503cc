"""Shared terminal code of the commands that use a controller."""

import argparse
from collections.abc import Sequence

from stepback_client import DEFAULT_URL, ApiError, Overloaded, server_url
from stepback_client.batch import INTERRUPTED, positive, say
from stepback_training.sampling.bounded_gather import Stopped
from stepback_training.sampling.searchers import Cluster


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


def cluster_of(given: argparse.Namespace) -> Cluster | None:
    """The cluster that the flags name; None for a controller."""
    return Cluster(given.actors, given.in_flight) if given.on else None


def say_failures(command: str, failures: Sequence[str], asked: int) -> int:
    """Say how many problems have no result. Returns the exit status: 1 where none has one."""
    if not failures:
        return 0
    message = f"{len(failures)} of {asked} searches failed, the last one by: {failures[-1]}"
    return say(command, message, int(len(failures) == asked))


def say_stopped(command: str, stopped: Stopped, kept: str) -> int:
    """Say why, and where what was done is kept. Returns the exit status: 130 after a signal."""
    error = stopped.__cause__
    if error is None:
        return say(command, f"stopped: {kept}", INTERRUPTED)
    return say(command, f"{error}\n{kept}", status_of(error))


def status_of(error: BaseException) -> int:
    """2 for a refusal, where the same request would fail again; else 1."""
    refused = isinstance(error, ApiError) and error.status < 500
    return 2 if refused and not isinstance(error, Overloaded) else 1
