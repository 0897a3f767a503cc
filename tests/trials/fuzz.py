"""10,000 hostile requests: bodies, heads, keys, readers. No 5xx; nothing of the inside gets out.

Two fifths of them are HTTP with a body that somebody has been at, a fifth has bad keys, a fifth is
bytes on a socket, some of them HTTP, and a fifth are streams: dropped at any byte, read slowly, or
read to their end. The same seed makes the same cases.
"""

import argparse
import asyncio
import json
import re
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import urlsplit

from stepback_core.schemas import ErrorBody
from tests.progress import counted
from tests.trials.base import Controller, controller, verdict
from tests.trials.fuzz_cases import Case, Fuzzer


@dataclass
class Found:
    """Answers of the server to all of it."""

    statuses: Counter[str] = field(default_factory=lambda: Counter())
    streams: int = 0
    """Read to their end."""
    hung_up: int = 0
    faults: list[str] = field(default_factory=lambda: [])


async def send(target: Controller, case: Case) -> bytes:
    """Send a case. Return the bytes until the server closes, or is silent for a while, or the case
    has read enough."""
    url = urlsplit(target.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=case.part)
    answer = b""
    try:
        with suppress(ConnectionError):
            writer.write(case.request)
            await writer.drain()
        with suppress(TimeoutError, ConnectionError):
            while case.reads is None or len(answer) < case.reads:
                # Whoever waits for more of a body that never comes has not answered: 2 s tell.
                patience = 30.0 if case.is_stream else 0.2 if answer else 2.0
                part = await asyncio.wait_for(reader.read(case.part), patience)
                if not part:
                    break
                answer += part
                await asyncio.sleep(case.pause)
    finally:
        hang_up(writer, case)
    return answer


def hang_up(writer: asyncio.StreamWriter, case: Case) -> None:
    """Whoever leaves early leaves by a reset, or by a close."""
    if case.reads is not None and case.reads % 2:
        writer.transport.abort()
    else:
        writer.close()


def judge(target: Controller, answer: bytes, found: Found, case: Case) -> None:
    request = case.request
    status = answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "none"
    if case.reads is not None:
        found.hung_up += 1
    found.statuses[status] += 1
    text = answer.decode("latin-1")
    wrong = target.leaks(text)
    if status.startswith("5"):
        wrong.append(f"HTTP {status}")
    is_whole = case.reads is None and not request.startswith(b"HEAD")
    if status.startswith("4") and is_whole and not has_error_body(status, answer):
        wrong.append("not the error body")
    if case.is_stream:
        found.streams += status == "200"
        wrong += stream_faults(status, answer)
    found.faults += [f"{fault}: {request[:200]!r} -> {answer[:300]!r}" for fault in wrong]


def stream_faults(status: str, answer: bytes) -> list[str]:
    """List the faults of a stream that was read to its end."""
    if status == "none":
        return ["no answer to a stream"]
    # An error, where a search that had waited long in the queue was refused after all.
    ends = (b"event: result\n", b"event: error\n")
    is_whole = status != "200" or any(end in answer for end in ends)
    return [] if is_whole else [f"a stream that ends in {answer[-300:]!r}"]


_NO_HTTP = (
    b"",
    b"Invalid HTTP request received.",
    b"1e\r\nInvalid HTTP request received.\r\n0\r\n\r\n",
)
"""Chunked where the request had begun."""


def has_error_body(status: str, answer: bytes) -> bool:
    """True if an answer, or the first of several, has the error body. What is no HTTP at all never
    reaches the application: the server answers that with text."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    if length is None or b"application/json" not in head:
        # Lost, at times, where the server has hung up on the rest of what came.
        return rest in _NO_HTTP and status == "400"
    try:
        ErrorBody.model_validate_json(rest[: int(length[1])])
    except ValueError:
        return False
    return True


async def run(target: Controller, cases: int, seed: int) -> Found:
    found, places = Found(), asyncio.Semaphore(64)
    fuzzer = Fuzzer(Random(seed), list(target.keys.values()))

    async def one(case: Case) -> None:
        judge(target, await send(target, case), found, case)
        places.release()

    async with asyncio.TaskGroup() as group:
        for _ in counted(range(cases), "cases"):
            await places.acquire()
            group.create_task(one(fuzzer.case()))
    return found


def broken_lines(target: Controller) -> list[str]:
    """Lines of the server's own log that are no JSON object: what was it that broke them?"""
    lines = target.log.read_text(errors="replace").splitlines()
    return [line for line in lines if "stepback_server" in line and not is_object(line)][:3]


def is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    # One key without limits, and one that is soon at its own.
    few = {"max_searches": 1, "tokens_per_minute": 5000}
    small: dict[str, Any] = {"max_breadth": 32, "budget_seconds": 1}
    small |= {"log_format": "json"}
    with controller("alice", "bob", limits=few, log_level="info", **small) as target:
        found = asyncio.run(run(target, given.cases, given.seed))
        is_idle = target.is_idle()
        logged, restarts = target.logged() + broken_lines(target), target.restarts()
    for fault in found.faults[:10]:
        print(fault)
    return verdict(
        "fuzz",
        f"{given.cases} cases: {dict(sorted(found.statuses.items()))}, {found.streams} streams "
        f"read to their end, {found.hung_up} hang-ups, {len(found.faults)} faults",
        no_fault=not found.faults,
        idle_at_the_end=is_idle,
        logged=logged,
        no_engine_lost=restarts == 0,
    )


if __name__ == "__main__":
    sys.exit(main())
