"""The endpoints that jobs may ask, by path."""

from stepback_server.api.openai.endpoints import ChatEndpoint, CompletionsEndpoint
from stepback_server.api.paths import CHAT_PATH, COMPLETIONS_PATH, SEARCH_PATH
from stepback_server.endpoints.solve import SolveEndpoint
from stepback_server.jobs.job import Endpoint
from stepback_server.service import Service
from stepback_server.settings import Settings


def endpoints_of(service: Service, settings: Settings) -> dict[str, Endpoint]:
    """The endpoints of a service. A further one is a line here."""
    return {
        SEARCH_PATH: SolveEndpoint(service),
        CHAT_PATH: ChatEndpoint(service, settings),
        COMPLETIONS_PATH: CompletionsEndpoint(service, settings),
    }
