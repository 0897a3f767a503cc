"""Hostile requests, drawn at random: the same seed draws the same ones."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

GOOD: dict[str, Any] = {
    "task": "countdown",
    "problem": {"numbers": [3, 5, 7, 25], "target": 41},
    "strategy": "greedy",
    "budget": {"tokens": 20, "seconds": 1.0},
}
STREAMS: list[dict[str, Any]] = [
    {"strategy": "best_first", "select": "perplexity", "breadth": 8},
    {"strategy": "self_backtracking", "select": "vote", "breadth": 16, "budget": {"seconds": 0.3}},
    {"strategy": "best_of_n", "select": "perplexity", "breadth": 32, "tree": True, "budget": {}},
    {"strategy": "majority", "breadth": 4},
    {"strategy": "greedy", "candidates": 0},
]
FIELDS = ["task", "problem", "prompt", "model", "strategy", "breadth", "backtracks", "temperature"]
FIELDS += [
    "stream",
    "seed",
    "select",
    "budget",
    "candidates",
    "tree",
    "numbers",
    "target",
    "tokens",
    "x",
    "",
]
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
NAMES += ["X-Request-Id", "traceparent", "tracestate"]
METHODS = ["POST", "GET", "PUT", "TRACE", "OPTIONS", "HEAD", "\x00", "P" * 5000]
PATHS = ["/solve", "/health", "/ready", "/version", "/../etc/passwd", "*", "/%00", "/%ff%fe"]
PATHS += ["/solve?key=aaa", "http://other/", "/" + "a" * 70_000, "/so\x00lve", "/\xff", "/docs"]
VALUES = ["", "0", "-1", "5", "9" * 20, "chunked", "identity, chunked", "\x00", "gzip", "close"]
VALUES += ["application/json", "text/plain; charset=\xff", "100-continue", "h2c", "a" * 70_000]


@dataclass(frozen=True, slots=True)
class Case:
    """The bytes of one request, and the manners of its reader."""

    request: bytes
    reads: int | None = None
    """Bytes of the answer after which the reader hangs up; None: he stays to its end."""
    pause: float = 0.0
    """Seconds between two reads of at most `part` bytes."""
    part: int = 1 << 16
    is_stream: bool = False


class Fuzzer:
    def __init__(self, random: Random, keys: Sequence[str]) -> None:
        self._random = random
        self._keys = keys

    def case(self) -> Case:
        """One request, whole or not."""
        made = self._random.choice(
            [self._mutated, self._literal, self._bad_key, self._bad_head, self._stream]
        )
        case = made()
        return case if isinstance(case, Case) else Case(case)

    @property
    def _key(self) -> str:
        return self._random.choice(self._keys)

    def _stream(self) -> Case:
        """A streamed search whose reader hangs up at any byte, of his own request too, is slow, or
        asks for what cannot be."""
        random = self._random
        body = GOOD | random.choice(STREAMS) | {"stream": True}
        if random.random() < 0.1:
            body["problem"] = random.choice([{}, {"numbers": [1], "target": 0}, None])
        request = self._request(json.dumps(body).encode())
        act = random.randrange(5)
        if act == 0:
            return Case(request[: random.randrange(1, len(request))], reads=0)
        if act == 1:
            return Case(request, reads=0)
        if act == 2:
            return Case(request, is_stream=True)
        if act == 3:
            return Case(request, pause=0.02, part=random.choice([200, 5000]), is_stream=True)
        return Case(request, reads=random.randrange(1, random.choice([500, 30_000])))

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
        path = random.choice([*PATHS, f"/{self._key}", f"/v1/models/{self._key}/reload"])
        lines = [f"{random.choice(METHODS)} {path} HTTP/1.1", "Host: x"]
        for _ in range(random.randint(0, 6)):
            value = random.choice([*VALUES, f"Bearer {self._key}", self._key])
            lines.append(f"{random.choice(NAMES)}: {value}")
        chunks = [b"", b"{}", b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", random.randbytes(50)]
        body = random.choice(chunks)
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body

    def _names(self) -> list[bytes]:
        """Headers for the caller's name of a request, and for the trace that it is part of: as it
        should be, as it should not, and with a key in the wrong place."""
        random, key = self._random, self._key.encode()
        trace = b"00-%b-%b-01" % (random.randbytes(16).hex().encode(), b"00f067aa0ba902b7")
        values = {
            b"X-Request-Id": [b"q-1", b"", b"a b", b'"}', b"\xff", b"x" * 129, b"%n{0}", key],
            b"traceparent": [trace, trace[:-1], b"00-" + b"0" * 32, b"ff-", b"\xff" * 9, key],
            b"tracestate": [b"a=b", b"=,=,", b"k=" + key, b"a=b," * 500, b"\xff", key],
        }
        return [
            name + b": " + random.choice(known)
            for name, known in values.items()
            if random.random() < 0.3
        ]

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
        head += self._names()
        return b"\r\n".join(head) + b"\r\n\r\n" + body
