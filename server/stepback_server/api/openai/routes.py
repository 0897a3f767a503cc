"""OpenAI's routes: `/solve` for clients that speak nothing else."""

import time
import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response

from stepback_core.schemas import Model
from stepback_core.schemas.openai import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from stepback_core.schemas.openai_answers import (
    ChatCompletion,
    Completion,
    Text,
    TokenizerInfo,
    Tokens,
)
from stepback_server.api.authentication import CurrentTenant
from stepback_server.api.body import StrictRoute, sent_as_json
from stepback_server.api.error_answers import described
from stepback_server.api.middleware import until_hang_up
from stepback_server.api.openai import tokenizer
from stepback_server.api.openai.answers import Envelope, chat_completion, completion
from stepback_server.api.openai.calls import all_results, begun, search_rows
from stepback_server.api.openai.stream import chat_chunks, completion_chunks
from stepback_server.api.openai.translation import Translated, Translator
from stepback_server.api.openai_errors import status_of
from stepback_server.api.paths import CHAT_PATH, COMPLETIONS_PATH
from stepback_server.api.routes import (
    IdempotencyKey,
    TheService,
    replayed_headers,
)
from stepback_server.api.sse import WorkStream
from stepback_server.api.state import state_of
from stepback_server.concurrency import Interrupted
from stepback_server.errors import ERRORS, ApiError
from stepback_server.redaction import hide_keys
from stepback_server.request_context import CLIENT_CLOSED_REQUEST, note
from stepback_server.service import Service

router = APIRouter(route_class=StrictRoute, tags=["openai"])

_ERRORS = described(
    {code for code in ERRORS if not code.startswith("reload_")}
    - {"unknown_id", "unknown_model", "no_such_path", "method_not_allowed", "http_error"},
    status_of=status_of,
)

BudgetHeader = Annotated[
    int | None,
    Header(
        alias="X-Stepback-Budget-Tokens",
        ge=1,
        le=10_000_000,
        description="`budget.tokens`, for clients that can send no fields of their own.",
    ),
]


@router.post(
    CHAT_PATH,
    responses=_ERRORS,
    response_model=ChatCompletion,
    dependencies=[Depends(sent_as_json)],
)
async def chat_completions(
    body: ChatRequest,
    request: Request,
    service: TheService,
    tenant: CurrentTenant,
    idempotency_key: IdempotencyKey = None,
    budget_tokens: BudgetHeader = None,
) -> Response:
    """Search for the answer to one message. Fields of `/solve` may stand at the top level or in
    `stepback`."""
    call = _translator(request, service).chat(body, budget_tokens)
    _record(service, call, body.user)
    envelope = _envelope("chatcmpl", call, service)
    [search] = call.searches
    searches = service.searches
    try:
        if body.stream:
            async with until_hang_up(request):
                live = await searches.watch(search, tenant, idempotency_key)
            headers = replayed_headers() if live.is_joined else {}
            return WorkStream(live, chat_chunks(live, call.wanted, envelope), headers=headers)
        async with until_hang_up(request):
            result, is_joined = await searches.result(search, tenant, idempotency_key)
    except Interrupted:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    answer = chat_completion(result, call.wanted, envelope)
    headers = replayed_headers() if is_joined else {}
    return Response(_json(answer), headers=headers, media_type="application/json")


@router.post(
    COMPLETIONS_PATH,
    responses=_ERRORS,
    response_model=Completion,
    dependencies=[Depends(sent_as_json)],
)
async def completions(
    body: CompletionRequest,
    request: Request,
    service: TheService,
    tenant: CurrentTenant,
    idempotency_key: IdempotencyKey = None,
    budget_tokens: BudgetHeader = None,
) -> Response:
    """Search for the answers to one or several prompts, as texts or token ids."""
    call = _translator(request, service).completion(body, budget_tokens)
    _record(service, call, body.user)
    envelope = _envelope("cmpl", call, service)
    run = search_rows(service, call.searches, tenant, idempotency_key)
    if body.stream:
        try:
            async with until_hang_up(request):
                rows = await begun(run)
        except Interrupted:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        return WorkStream(run, completion_chunks(rows, call.wanted, envelope))
    try:
        async with until_hang_up(request):
            results = await all_results(run, len(call.searches))
    except Interrupted:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    finally:
        await run.close()
    return Response(
        _json(completion(results, call.wanted, envelope)), media_type="application/json"
    )


@router.get("/v1/models/{name:path}", responses={401: _ERRORS[401], 404: _ERRORS[404]})
async def model(name: str, service: TheService, _: CurrentTenant) -> Model:
    """Return one entry of `/v1/models`."""
    found = next((each for each in service.models if each.id == name), None)
    if found is None:
        raise ApiError(
            "model_not_found", f"model: this server has {service.model.id!r}.", param="model"
        )
    return found


@router.post("/tokenize", responses=_ERRORS, dependencies=[Depends(sent_as_json)])
async def tokenize(body: TokenizeRequest, service: TheService, _: CurrentTenant) -> Tokens:
    """Return the token ids of a text."""
    return tokenizer.tokenize(body, service.checkpoint)


@router.post("/detokenize", responses=_ERRORS, dependencies=[Depends(sent_as_json)])
async def detokenize(body: DetokenizeRequest, service: TheService, _: CurrentTenant) -> Text:
    """Return the text of token ids."""
    return tokenizer.detokenize(body, service.checkpoint)


@router.get("/tokenizer_info", responses={401: _ERRORS[401]})
async def tokenizer_info(service: TheService, _: CurrentTenant) -> TokenizerInfo:
    """Describe the tokenizer, for clients that would else need its files."""
    return tokenizer.describe(service.checkpoint)


@router.api_route(
    "/v1/responses{rest:path}",
    methods=["GET", "POST", "DELETE"],
    include_in_schema=False,
)
async def responses(rest: str, _: CurrentTenant) -> Response:
    """Refuse the Responses API with the way that there is."""
    raise ApiError(
        "no_such_path",
        f"The Responses API is not offered: send the text as a message to {CHAT_PATH}.",
    )


def _translator(request: Request, service: Service) -> Translator:
    return Translator(service.checkpoint, state_of(request.app).settings)


def _record(service: Service, call: Translated, user: str | None) -> None:
    if call.unknown_fields:
        service.metrics.ignored(call.unknown_fields)
    if user is not None:
        note(user=hide_keys(user))


def _envelope(prefix: str, call: Translated, service: Service) -> Envelope:
    name = f"{prefix}-{uuid.uuid4().hex}"
    return Envelope.of(name, int(time.time()), call.wanted, service.checkpoint.digest)


def _json(answer: ChatCompletion | Completion) -> bytes:
    return answer.model_dump_json().encode()
