"""State of the application: the parts that routes and dependencies need."""

import asyncio
from dataclasses import dataclass

from fastapi import FastAPI

from stepback_server.gateway.keys import KeyRing
from stepback_server.jobs.lazy import Jobs
from stepback_server.service import Service
from stepback_server.settings import Settings


@dataclass(frozen=True, slots=True)
class AppState:
    """The parts that `create_app` has put together."""

    service: Service
    keys: KeyRing
    settings: Settings
    jobs: Jobs

    def attach(self, app: FastAPI) -> None:
        """Make this the state of an application."""
        app.state.parts = self

    async def drain(self) -> None:
        """Take nothing more; what is in flight may go on for the grace period."""
        grace_seconds = self.settings.grace_seconds
        await asyncio.gather(self.service.drain(), self.jobs.close(grace_seconds))


def state_of(app: FastAPI) -> AppState:
    """Return the state of an application that `create_app` made."""
    parts = app.state.parts
    assert isinstance(parts, AppState)
    return parts
