"""State of the application: the parts that routes and dependencies need."""

from dataclasses import dataclass

from fastapi import FastAPI

from stepback_server.gateway.keys import KeyRing
from stepback_server.service import Service
from stepback_server.settings import Settings


@dataclass(frozen=True, slots=True)
class AppState:
    """The parts that `create_app` has put together."""

    service: Service
    keys: KeyRing
    settings: Settings

    def attach(self, app: FastAPI) -> None:
        """Make this the state of an application."""
        app.state.parts = self


def state_of(app: FastAPI) -> AppState:
    """Return the state of an application that `create_app` made."""
    parts = app.state.parts
    assert isinstance(parts, AppState)
    return parts
