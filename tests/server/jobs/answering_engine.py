"""A vLLM server's protocol in a process of its own that knows the answer at once.

It lets tests of jobs run hundreds of searches in seconds, and counts what it was asked for.
Run it as `python -m tests.server.jobs.answering_engine PORT SECONDS_PER_SAMPLE [HOST]`.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from stepback_server.checkpoint import Checkpoint
from tests.conftest import CHECKPOINT

PROBLEM = {"numbers": [3, 5], "target": 15}
STEPS = ["5*3=15"]


class AnsweringEngine:
    """Answers every prompt with the steps of one problem."""

    def __init__(self, seconds: float) -> None:
        checkpoint = Checkpoint.open(CHECKPOINT)
        self._codec = checkpoint.codec
        self._answer = self._written(STEPS)
        self._name = checkpoint.manifest.name
        self._context = checkpoint.context_tokens
        self._seconds = seconds
        self.samples = 0
        self.searches = 0
        self.most_at_once = 0
        self.at_once = 0

    def answer(self, prompt: list[int]) -> list[int]:
        """The tokens after those of a prompt."""
        return self._answer

    def _written(self, steps: list[str]) -> list[int]:
        text = self._codec.grammar.separator.join(steps)
        ids: list[int] = self._codec.tokenizer.encode(text, add_special_tokens=False)
        return [*ids, self._codec.tokens.end_id]

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        is_search = int(body["max_tokens"] > 1)
        stream = self._stream(body["n"], is_search, self.answer(body["prompt"]))
        return StreamingResponse(stream, media_type="text/event-stream")

    async def _stream(self, n: int, is_search: int, ids: list[int]) -> AsyncIterator[str]:
        """`is_search`: 1, or 0 for a sign of life."""
        self.samples += n
        self.searches += is_search
        self.at_once += is_search
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self._seconds)
            logprobs = {"token_logprobs": [-0.1] * len(ids), "top_logprobs": [{}] * len(ids)}
            for index in range(n):
                choice: dict[str, Any] = {"index": index, "token_ids": ids, "logprobs": logprobs}
                yield _event({"choices": [choice | {"finish_reason": "stop"}]})
            yield _event({"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": 0}}})
            yield "data: [DONE]\n\n"
        finally:
            self.at_once -= is_search

    async def models(self, _: Request) -> Response:
        return JSONResponse({"data": [{"id": self._name, "max_model_len": self._context}]})

    async def version(self, _: Request) -> Response:
        return JSONResponse({"version": "0.32.0"})

    async def metrics(self, _: Request) -> Response:
        return Response(f"vllm:generation_tokens_total{{a}} {self.samples * len(self._answer)}\n")

    async def told(self, _: Request) -> Response:
        said = {"samples": self.samples, "searches": self.searches}
        return JSONResponse(said | {"most_at_once": self.most_at_once})

    async def nothing(self, _: Request) -> Response:
        return JSONResponse({})

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/completions", self.complete, methods=["POST"]),
                Route("/inference/v1/abort_requests", self.nothing, methods=["POST"]),
                Route("/v1/models", self.models),
                Route("/version", self.version),
                Route("/metrics", self.metrics),
                Route("/health", self.nothing),
                Route("/told", self.told),
            ]
        )


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


def serve(kind: type[AnsweringEngine]) -> None:
    """Run an engine as the command line says."""
    host = sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1"
    uvicorn.run(kind(float(sys.argv[2])).app, host=host, port=int(sys.argv[1]), log_level="error")


if __name__ == "__main__":
    serve(AnsweringEngine)
