"""`stepback batch`: a file of problems to a server, or to an engine in this process."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stepback_client.batch.inputs import read_lines, refuse_as_output
from stepback_client.batch.lines import GrowingLines, growing, take_out
from stepback_client.batch.requests import BatchItem, read_items
from stepback_client.batch.scheduler import Stopped, ask_each
from stepback_client.batch.solvers import Answer, Solve, in_process, on_ray, over_http
from stepback_client.batch.terminal import (
    INTERRUPTED,
    add_cluster_flags,
    drain_on_signals,
    positive,
    say,
    say_missing,
)
from stepback_client.connection import DEFAULT_URL
from stepback_client.environment import server_url
from stepback_client.errors import BadSetting
from stepback_core.errors import InvalidInput


def batch(arguments: Sequence[str]) -> int:
    """Answer every line of a file. Returns 0; 1 where it stopped on the way, what is done being
    kept; 2 for what is refused; 130 after a signal."""
    given = batch_parser().parse_args(arguments)
    try:
        return asyncio.run(_batch(given))
    except (InvalidInput, BadSetting, OSError) as error:
        return say("batch", str(error), 2)
    except ModuleNotFoundError as error:
        return say_missing("batch", error)
    except Stopped as stopped:
        if stopped.__cause__ is None:
            return say("batch", f"stopped; the same command goes on from {given.out}", INTERRUPTED)
        return say("batch", f"{stopped.__cause__}; the same command goes on from {given.out}", 1)


async def _batch(given: argparse.Namespace) -> int:
    if given.on and not given.model:
        raise InvalidInput("--on ray needs --model, a folder that every node has")
    refuse_as_output(given.inputs, given.out)
    items = list(read_items(read_lines(given.inputs, on_cluster=bool(given.on))))
    if given.retry_failed:
        again = take_out(given.out, lambda line: bool(_id_of(line, given.out)) and "error" in line)
        print(f"{again} lines with an error are asked again", file=sys.stderr)
    with growing(given.out) as out:
        # Under the lock of the file: two commands cannot both think a line undone.
        done = {_id_of(line, given.out) for line in out.read()}
        left = [item for item in items if item.custom_id not in done]
        in_flight = given.in_flight * (given.actors if given.on else 1)
        async with _solver(given) as solve:
            failed = await _answer(left, len(items), solve, out, in_flight)
    print(f"{len(items)} lines in {given.out}, {failed} refused now", file=sys.stderr)
    return 0


def _id_of(line: dict[str, Any], path: Path) -> str:
    """The id of an answer. Raises InvalidInput for a line that is none."""
    if not isinstance(line.get("custom_id"), str) or not {"result", "error"} & line.keys():
        raise InvalidInput(f"{path}: it holds other lines than answers; name another file")
    return str(line["custom_id"])


def _solver(given: argparse.Namespace) -> AbstractAsyncContextManager[Solve]:
    if given.on:
        return on_ray(given.model, given.actors, given.in_flight)
    return in_process(given.model, given.in_flight) if given.model else over_http(given.url)


async def _answer(
    left: Sequence[BatchItem], total: int, solve: Solve, out: GrowingLines, in_flight: int
) -> int:
    """Answer what is left; how many were refused."""
    stop, failed = asyncio.Event(), 0
    drain_on_signals("batch", stop)
    with _progress() as bar:
        task = bar.add_task("batch", total=total, completed=total - len(left))

        def keep(item: BatchItem, answer: Answer) -> None:
            nonlocal failed
            out.append({"custom_id": item.custom_id} | answer)
            failed += "error" in answer
            bar.advance(task)

        await ask_each(left, lambda item: solve(item.body), keep, in_flight=in_flight, stop=stop)
    return failed


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    # On standard error: answers may go through a pipe.
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))


def batch_parser() -> argparse.ArgumentParser:
    """The flags of `stepback batch`."""
    parser = argparse.ArgumentParser(
        "stepback batch",
        description="Answer every line of JSONL or Parquet. The same command goes on where it was "
        "stopped or killed: a line that is in OUT is not asked again. Where the controller needs "
        "a key, set STEPBACK_API_KEY.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="IN",
        help="a file of problems or {custom_id, body}, or a folder of such; "
        "with --on ray also an address, such as s3://bucket/in.parquet",
    )
    parser.add_argument("--out", type=Path, required=True, help="the JSONL file that grows")
    parser.add_argument(
        "--retry-failed", action="store_true", help="ask lines of OUT with an error again"
    )
    parser.add_argument("--in-flight", type=positive, default=16, help="searches at once; 16")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--url",
        default=server_url(),
        help=f"the controller; STEPBACK_URL or {DEFAULT_URL} if left out",
    )
    where.add_argument("--model", type=Path, help="a checkpoint to search with, without a server")
    add_cluster_flags(parser)
    return parser
