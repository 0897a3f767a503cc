"""Several controllers on one PostgreSQL, with keys that have limits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from stepback_server.gateway.keys import new_key
from tests.server.jobs.conftest import Controllers, wait_for

FEW, TOKENS_A_MINUTE = 3, 60
PATIENT = 20.0
"""Longer than a busy machine takes for a round with the database."""


@dataclass
class Fleet:
    """Controllers, and a client of each for each key."""

    started: Controllers
    urls: list[str]
    keys: dict[str, str]

    def client(self, number: int, key: str = "any") -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.keys[key]}"}
        return httpx.Client(base_url=self.urls[number], headers=headers, timeout=120)

    def told(self) -> dict[str, int]:
        return dict(httpx.get(f"{self.started.engine}/told", timeout=60).json())


def start(
    engine: str, folder: Path, database: str, count: int, *, few: int = FEW, **settings: Any
) -> Fleet:
    """Start so many; `few` is what the key of that name may have in flight."""
    limits: dict[str, dict[str, int]] = {
        "any": {},
        "few": {"max_searches": few},
        "poor": {"tokens_per_minute": TOKENS_A_MINUTE},
    }
    made = {name: new_key(name, **given) for name, given in limits.items()}
    file = folder / "keys.toml"
    file.write_text("\n".join(line for _, line in made.values()))
    started = Controllers(engine, folder)
    fleet = Fleet(started, [], {name: key for name, (key, _) in made.items()})
    for _ in range(count):
        _, url = started.start(
            keys_file=file, database_url=database, lease_seconds=4, max_queued=500, **settings
        )
        fleet.urls.append(url)
    for url in fleet.urls:
        wait_for(lambda url=url: limits_of(url) == "shared")
    return fleet


def limits_of(url: str) -> str:
    return str(httpx.get(f"{url}/ready", timeout=60).json()["limits"])
