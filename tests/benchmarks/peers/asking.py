"""Searchers compared: our controller, vLLM's beam search, peers in environments of their own."""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from stepback_client import AsyncClient
from stepback_core.tasks import CountdownProblem
from stepback_server.checkpoint import Checkpoint
from tests.benchmarks.measuring import TASK
from tests.benchmarks.peers.rows import PeerRow
from tests.conftest import ROOT

_WORKERS = Path(__file__).parent / "workers"
_BEAM_TOKENS = 36
"""vLLM's beam search runs so many steps, always: the longest plainest answer of 200 has as many."""
_DEADLINE = 3600.0


@dataclass(frozen=True, slots=True)
class Asked:
    """Problems under one search: which were solved, why others could not be asked, how long."""

    right: list[bool]
    errors: list[str]
    seconds: float


class Asker(Protocol):
    def ask(self, row: PeerRow, problems: Sequence[CountdownProblem]) -> Asked: ...


class Ours:
    """Our controller over the same server."""

    def __init__(self, url: str, in_flight: int) -> None:
        self._url = url
        self._in_flight = in_flight

    def ask(self, row: PeerRow, problems: Sequence[CountdownProblem]) -> Asked:
        return asyncio.run(self._all(dict(row.options), problems))

    async def _all(self, options: dict[str, Any], problems: Sequence[CountdownProblem]) -> Asked:
        async with AsyncClient(self._url, timeout=_DEADLINE) as client:

            async def one(seed: int) -> bool:
                result = await client.solve(problems[seed], seed=seed, **options)
                return bool(result.answer and result.answer.verified)

            return await _timed(one, len(problems), self._in_flight)


class VllmBeams:
    """`use_beam_search` of the server's own completions."""

    def __init__(self, url: str, checkpoint: Checkpoint, in_flight: int) -> None:
        self._url = url
        self._checkpoint = checkpoint
        self._in_flight = in_flight

    def ask(self, row: PeerRow, problems: Sequence[CountdownProblem]) -> Asked:
        return asyncio.run(self._all(row, problems))

    async def _all(self, row: PeerRow, problems: Sequence[CountdownProblem]) -> Asked:
        async with httpx.AsyncClient(base_url=self._url, timeout=_DEADLINE) as client:

            async def one(number: int) -> bool:
                problem = problems[number]
                texts = await self._beams(client, problem, row.options["width"])
                seen = texts if row.checker else texts[:1]
                return any(_is_right(problem, text) for text in seen)

            return await _timed(one, len(problems), self._in_flight)

    async def _beams(
        self, client: httpx.AsyncClient, problem: CountdownProblem, width: int
    ) -> list[str]:
        """The beams that ended by themselves, likeliest first; the marker stays in their text."""
        body = {
            "model": self._checkpoint.manifest.name,
            "prompt": self._checkpoint.codec.encode_prompt(TASK.checker.prompt(problem)),
            "use_beam_search": True,
            "n": width,
            "max_tokens": _BEAM_TOKENS,
            "temperature": 0,
            "skip_special_tokens": False,
        }
        reply = (await client.post("/v1/completions", json=body)).raise_for_status().json()
        return [each["text"] for each in reply["choices"] if each["finish_reason"] == "stop"]


class Peer:
    """A project in an environment of its own, asked over pipes."""

    def __init__(
        self, environment: Path, worker: str, url: str, checkpoint: Checkpoint, in_flight: int
    ) -> None:
        self._given = {"url": url, "model": checkpoint.manifest.name, "in_flight": in_flight}
        self._process = subprocess.Popen(
            [environment / "bin/python", _WORKERS / worker],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT / "core")},
            text=True,
        )

    def ask(self, row: PeerRow, problems: Sequence[CountdownProblem]) -> Asked:
        asked = [problem.model_dump(mode="json") for problem in problems]
        job = {**self._given, "method": row.method, "options": row.options, "problems": asked}
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin and stdout
        print(json.dumps(job), file=stdin, flush=True)
        if not (line := stdout.readline()):
            raise RuntimeError(f"{row.by}: its worker ended with {self._process.wait()}")
        body = json.loads(line)
        return Asked(
            [
                _is_right(each, text)
                for each, (text, _) in zip(problems, body["answers"], strict=True)
            ],
            [error for _, error in body["answers"] if error],
            body["seconds"],
        )

    def close(self) -> None:
        """Let the worker end, or make it."""
        with self._process as process:
            assert process.stdin
            process.stdin.close()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()


def _is_right(problem: CountdownProblem, text: str | None) -> bool:
    verdict = TASK.checker.check(problem, (text or "").strip("\n").split("\n"))
    return bool(text) and verdict.strict is True


async def _timed(one: Callable[[int], Awaitable[bool]], count: int, in_flight: int) -> Asked:
    limit = asyncio.Semaphore(in_flight)

    async def limited(number: int) -> bool:
        async with limit:
            return await one(number)

    started = time.monotonic()
    right = await asyncio.gather(*(limited(number) for number in range(count)))
    return Asked(list(right), [], time.monotonic() - started)
