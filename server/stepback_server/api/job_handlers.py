"""The handlers that jobs may use, by path."""

from stepback_server.api.openai.job_handlers import ChatHandler, CompletionsHandler
from stepback_server.api.paths import CHAT_PATH, COMPLETIONS_PATH, SEARCH_PATH
from stepback_server.handlers.solve import SolveHandler
from stepback_server.jobs.job import Handler
from stepback_server.jobs.tries import Tries
from stepback_server.service import Service
from stepback_server.settings import Settings


def handlers_of(service: Service, settings: Settings, tries: Tries) -> dict[str, Handler]:
    """The handlers of a service. A further one is a line here."""
    return {
        SEARCH_PATH: SolveHandler(service),
        CHAT_PATH: ChatHandler(service, settings, tries),
        COMPLETIONS_PATH: CompletionsHandler(service, settings, tries),
    }
