"""10,000 hostile requests: bodies, heads and keys. No 5xx, and nothing of the inside gets out.

Half of them are HTTP with a body or a key that somebody has been at; the other half are bytes on a
socket, some of them HTTP. The same seed makes the same cases.
"""

import argparse
import asyncio
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import urlsplit

from stepback_core.wire import ErrorBody
from tests.trials.base import Controller, controller, verdict

GOOD: dict[str, Any] = {
    "task": "countdown",
    "problem": {"numbers": [3, 5, 7, 25], "target": 41},
    "strategy": "greedy",
    "budget": {"tokens": 20, "seconds": 1.0},
}
FIELDS = ["task", "problem", "prompt", "model", "strategy", "breadth", "backtracks", "temperature"]
FIELDS += ["seed", "select", "budget", "candidates", "tree", "numbers", "target", "tokens", "x", ""]
LITERALS = [
    *("NaN", "-Infinity", "1e400", "-1e400", "1e-400", "-0", "0.0", "01", "1.", "+1", "0x10"),
    *("9" * 400, "9" * 5000, "-" + "9" * 4000, "1" + "0" * 308 + ".5", "true", "null", "None"),
    *('"\\ud800"', '"\\udfff\\ud800"', '"\\u0000"', '"\\ud83d\\ude00"', '"\\x41"', '""'),
    *(f'"{"a" * 99_999}', f'"{"a" * 101_000}"', '"<backtrack>"', '"../../etc/passwd"', '"%s%n"'),
    *("[" * 300, "[" * 90 + "]" * 90, '{"a":' * 100_000, "[]", "{}", '"{{7*7}}"', '"<script>"'),
]
STRANGE = [b"\x00", b"\xff", b"\xed\xa0\x80", b"\r\n\r\n", b'"', b"{", b"}", b"\\", b"\xef\xbb\xbf"]
NAMES = ["Host", "Content-Length", "Transfer-Encoding", "Connection", "Expect", "Authorization"]
NAMES += ["Content-Type", "Idempotency-Key", "X-Forwarded-For", "Upgrade", "Content-Encoding", "Te"]
METHODS = ["POST", "GET", "PUT", "TRACE", "OPTIONS", "HEAD", "\x00", "P" * 5000]
PATHS = ["/solve", "/health", "/ready", "/version", "/../etc/passwd", "*", "/%00", "/%ff%fe"]
PATHS += ["/solve?key=aaa", "http://other/", "/" + "a" * 70_000, "/so\x00lve", "/\xff", "/docs"]
VALUES = ["", "0", "-1", "5", "9" * 20, "chunked", "identity, chunked", "\x00", "gzip", "close"]
VALUES += ["application/json", "text/plain; charset=\xff", "100-continue", "h2c", "a" * 70_000]


@dataclass
class Found:
    """What the server said to all of it."""

    statuses: Counter[str] = field(default_factory=lambda: Counter())
    faults: list[str] = field(default_factory=lambda: [])


class Fuzzer:
    def __init__(self, random: Random, key: str) -> None:
        self._random = random
        self._key = key

    def case(self) -> bytes:
        """One request, whole or not."""
        made = self._random.choice([self._mutated, self._literal, self._bad_key, self._bad_head])
        return made()

    def _mutated(self) -> bytes:
        """A good body with bytes changed, cut, doubled or put in."""
        body = bytearray(json.dumps(GOOD).encode())
        for _ in range(self._random.randint(1, 6)):
            at = self._random.randrange(len(body) + 1)
            act = self._random.randrange(4)
            if act == 0:
                body[at : at + 1] = self._random.randbytes(1)
            elif act == 1:
                del body[at : at + self._random.randint(1, 20)]
            elif act == 2:
                body[at:at] = body[at : at + self._random.randint(1, 20)]
            else:
                body[at:at] = self._random.choice(STRANGE)
        return self._request(bytes(body))

    def _literal(self) -> bytes:
        """A good object in which one or two fields hold what no field should."""
        fields = {name: json.dumps(value) for name, value in GOOD.items()}
        for _ in range(self._random.randint(1, 2)):
            name, literal = self._random.choice(FIELDS), self._random.choice(LITERALS)
            if self._random.random() < 0.3:
                fields["problem"] = f'{{"numbers": [{literal}, 5], "target": 41, "{name}": 1}}'
            else:
                fields[name] = literal
        text = ", ".join(f'"{name}": {value}' for name, value in fields.items())
        doubled = ', "breadth": 1, "breadth": "2"' if self._random.random() < 0.1 else ""
        return self._request(f"{{{text}{doubled}}}".encode())

    def _bad_key(self) -> bytes:
        """Keys that are nearly right, absurd, or of another scheme."""
        key, random = self._key, self._random
        at = random.randrange(len(key))
        bad: list[Callable[[], bytes]] = [
            lambda: b"Bearer " + (key[:at] + chr(random.randrange(33, 127)) + key[at:]).encode(),
            lambda: b"Bearer " + key[:at].encode(),
            lambda: b"Bearer " + key.encode()[::-1],
            lambda: b"Basic " + key.encode(),
            lambda: b"Bearer " + random.randbytes(20).replace(b"\r", b"").replace(b"\n", b""),
            lambda: b"Bearer " + b"k" * random.choice([1, 1000, 50_000, 100_000]),
            lambda: b"",
            lambda: key.encode(),
        ]
        path = random.choice(["/solve", "/v1/models", "/metrics", "/docs", "/solve/", "//solve"])
        return self._request(json.dumps(GOOD).encode(), random.choice(bad)(), path)

    def _bad_head(self) -> bytes:
        """Methods, paths and headers that are wrong, doubled, contradictory or endless."""
        random = self._random
        lines = [f"{random.choice(METHODS)} {random.choice(PATHS)} HTTP/1.1", "Host: x"]
        for _ in range(random.randint(0, 6)):
            value = random.choice([*VALUES, f"Bearer {self._key}"])
            lines.append(f"{random.choice(NAMES)}: {value}")
        chunks = [b"", b"{}", b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", random.randbytes(50)]
        body = random.choice(chunks)
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body

    def _request(
        self, body: bytes, authorization: bytes | None = None, path: str = "/solve"
    ) -> bytes:
        good = b"Bearer " + self._key.encode()
        head = [
            f"POST {path} HTTP/1.1".encode(),
            b"Host: x",
            b"Connection: close",
            b"Content-Type: application/json",
            b"Content-Length: %d" % len(body),
            b"Authorization: " + (good if authorization is None else authorization),
        ]
        if self._random.random() < 0.3:
            name = self._random.choice(
                [b"same", self._random.randbytes(4).hex().encode(), b"", b"\xff"]
            )
            head.append(b"Idempotency-Key: " + name)
        return b"\r\n".join(head) + b"\r\n\r\n" + body


async def send(target: Controller, request: bytes) -> bytes:
    """What comes back until the server closes, or says nothing more for a while."""
    url = urlsplit(target.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    answer = b""
    try:
        with suppress(ConnectionError):
            writer.write(request)
            await writer.drain()
        with suppress(TimeoutError, ConnectionError):
            # Whoever waits for more of a body that never comes has not answered: 2 s tell.
            while part := await asyncio.wait_for(reader.read(1 << 16), 2.0 if not answer else 0.2):
                answer += part
    finally:
        writer.close()
    return answer


def judge(target: Controller, answer: bytes, found: Found, request: bytes) -> None:
    status = answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "none"
    found.statuses[status] += 1
    text = answer.decode("latin-1")
    wrong = target.leaks(text)
    if status.startswith("5"):
        wrong.append(f"HTTP {status}")
    if status.startswith("4") and not request.startswith(b"HEAD") and not has_error_body(answer):
        wrong.append("not the error body")
    found.faults += [f"{fault}: {request[:200]!r} -> {answer[:300]!r}" for fault in wrong]


def has_error_body(answer: bytes) -> bool:
    """Whether an answer, or the first of several, has the error body. What is no HTTP at all never
    reaches the application: the server answers that with text."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    if length is None or b"application/json" not in head:
        return b"Invalid HTTP request received." in rest
    try:
        ErrorBody.model_validate_json(rest[: int(length[1])])
    except ValueError:
        return False
    return True


async def run(target: Controller, cases: int, seed: int) -> Found:
    found, places = Found(), asyncio.Semaphore(64)
    fuzzer = Fuzzer(Random(seed), target.keys["alice"])

    async def one(request: bytes) -> None:
        judge(target, await send(target, request), found, request)
        places.release()

    async with asyncio.TaskGroup() as group:
        for _ in range(cases):
            await places.acquire()
            group.create_task(one(fuzzer.case()))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with controller("alice", log_level="info", max_breadth=32, budget_seconds=1) as target:
        found = asyncio.run(run(target, given.cases, given.seed))
        logged, restarts = target.logged(), target.restarts()
    for fault in found.faults[:10]:
        print(fault)
    return verdict(
        "fuzz",
        f"{given.cases} cases: {dict(sorted(found.statuses.items()))}, {len(found.faults)} faults",
        no_fault=not found.faults,
        logged=logged,
        no_engine_lost=restarts == 0,
    )


if __name__ == "__main__":
    sys.exit(main())
