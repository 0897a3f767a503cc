"""OpenAI's routes without HTTP, for the lines of batches."""

import json
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from stepback_core.schemas import SolveRequest, SolveResult
from stepback_core.schemas.openai import ChatRequest, CompletionRequest
from stepback_server.api import openai_errors
from stepback_server.api.openai.answers import Envelope, chat_completion, completion
from stepback_server.api.openai.translation import Translated, Translator
from stepback_server.concurrency import task_group
from stepback_server.errors import ApiError
from stepback_server.gateway.tenant import Tenant
from stepback_server.handlers.solve import answered, refused, try_again, urgency_of
from stepback_server.jobs.job import JobAnswer, Report
from stepback_server.jobs.tries import Tries
from stepback_server.service import Service
from stepback_server.settings import Settings

# Fields that change nothing of an answer in a file.
_OF_STREAMS = frozenset({"stream", "stream_options"})


class _OpenAiHandler(ABC):
    """Searches for both routes, and errors as OpenAI spells them."""

    def __init__(self, service: Service, settings: Settings, tries: Tries) -> None:
        self._service = service
        self._settings = settings
        self._tries = tries

    async def __call__(
        self, body: Any, tenant: Tenant, *, is_line: bool, report: Report | None
    ) -> JobAnswer:
        """Answer the body. Raises NotNow."""
        try:
            # Left out, or a line with stream_options would be refused for what it does not do.
            given = {name: value for name, value in body.items() if name not in _OF_STREAMS}
            call = self._translated(given)
            if call.unknown_fields:
                self._service.metrics.ignored(call.unknown_fields)
            results = await self._search_all(call.searches, tenant, is_line=is_line)
            return answered(results, self._content(results, call))
        except Exception as error:  # Every error has its answer, as over HTTP.
            return refused(error, _spelled)

    @property
    def _translator(self) -> Translator:
        # Made again for each body: the checkpoint may have been exchanged.
        return Translator(self._service.checkpoint, self._settings)

    @abstractmethod
    def _translated(self, body: dict[str, Any]) -> Translated:
        """Return the searches that a body asks for."""

    @abstractmethod
    def _content(self, results: Sequence[SolveResult], call: Translated) -> str:
        """Return the answer as JSON."""

    def _envelope(self, prefix: str, call: Translated) -> Envelope:
        digest = self._service.checkpoint.digest
        return Envelope.of(f"{prefix}-{uuid.uuid4().hex}", int(time.time()), call.wanted, digest)

    async def _search_all(
        self, searches: Sequence[SolveRequest], tenant: Tenant, *, is_line: bool
    ) -> list[SolveResult]:
        """The results in order; what one prompt waits for is not paid by the others again."""

        async def search(each: SolveRequest) -> SolveResult:
            return await self._service.solve(each, tenant, urgency=urgency_of(is_line))

        async def search_now(each: SolveRequest) -> SolveResult:
            try:
                return await search(each)
            except Exception as error:
                if (later := try_again(error)) is None:
                    raise
                raise later from error

        async def patiently(each: SolveRequest) -> SolveResult:
            return await self._tries.until_answered(lambda: search_now(each))

        if len(searches) == 1:
            return [await search(searches[0])]
        async with task_group() as group:
            tasks = [group.create_task(patiently(each)) for each in searches]
        return [task.result() for task in tasks]


class ChatHandler(_OpenAiHandler):
    """`POST /v1/chat/completions`."""

    def _translated(self, body: dict[str, Any]) -> Translated:
        return self._translator.chat(ChatRequest.model_validate(body), None)

    def _content(self, results: Sequence[SolveResult], call: Translated) -> str:
        [result] = results
        envelope = self._envelope("chatcmpl", call)
        return chat_completion(result, call.wanted, envelope).model_dump_json()


class CompletionsHandler(_OpenAiHandler):
    """`POST /v1/completions`."""

    def _translated(self, body: dict[str, Any]) -> Translated:
        return self._translator.completion(CompletionRequest.model_validate(body), None)

    def _content(self, results: Sequence[SolveResult], call: Translated) -> str:
        return completion(results, call.wanted, self._envelope("cmpl", call)).model_dump_json()


def _spelled(failure: ApiError) -> JobAnswer:
    return JobAnswer(openai_errors.status_of(failure), json.dumps(openai_errors.body_of(failure)))
