"""Requests of the OpenAI-compatible routes.

Unlike `/solve` they ignore fields that they do not know: clients send what other servers take.
"""

from typing import Any, Literal

from pydantic import ConfigDict, Field, JsonValue

from stepback_core.schemas.base import IntegersOfJson
from stepback_core.schemas.request import SolveRequest

ReasoningEffort = Literal["none", "low", "medium", "high"]

_OPENAI_SPELLS = frozenset(
    {
        "model",
        "seed",
        "temperature",
        "stream",
        "logprobs",
        "stop",
        "n",
        "prompt",
        "problem",
        "background",
    }
)
SEARCH_FIELDS = frozenset(SolveRequest.model_fields) - _OPENAI_SPELLS - {"candidates"}
"""Fields of `/solve` that may stand at the top level, or in `stepback`, under the same name."""

_SEED = 2**63


class _OpenRequest(IntegersOfJson):
    """Base of the requests: strict in the values of known fields, open for unknown ones."""

    model_config = ConfigDict(
        extra="allow", frozen=True, strict=True, use_attribute_docstrings=True
    )

    @property
    def extra(self) -> dict[str, Any]:
        """Fields that this model does not name."""
        return self.model_extra or {}


class StreamOptions(_OpenRequest):
    """Options of a stream."""

    include_usage: bool | None = None
    """Send one more chunk with the usage at the end."""


class _GenerationRequest(_OpenRequest):
    """Fields of both routes. `model_extra` holds the rest, fields of `/solve` included."""

    model: str | None = Field(default=None, max_length=512)
    """A name from `/v1/models`: the served model, or `NAME:STRATEGY`. The served one by default."""
    n: int | None = Field(default=None, ge=1, le=1024)
    """Number of distinct answers to return, best first; there may be fewer."""
    max_tokens: int | None = Field(default=None, ge=1)
    """The longest answer. The whole search is limited by `budget.tokens`."""
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    """Sampling temperature; 0 is greedy."""
    seed: int | None = Field(default=None, ge=-_SEED, lt=_SEED)
    """Any 64-bit integer; folded into 31 bits."""
    stop: str | list[str] | None = None
    """Up to four texts: the answer is returned up to the first of them."""
    stream: bool | None = None
    """Answer in chunks, as server-sent events."""
    stream_options: StreamOptions | None = None
    """Options of the stream; only with `stream`."""
    user: str | None = Field(default=None, max_length=512)
    """Your name for the end user; it goes into the log."""
    stepback: dict[str, JsonValue] | None = None
    """Fields of `/solve` in one object, for instance `{"strategy": "greedy"}`. They may stand at
    the top level too, each in one place only."""


class ChatMessage(_OpenRequest):
    """A message. It is refused if the checkpoint's frame has no place for its kind."""

    role: str = Field(min_length=1, max_length=64)
    """`user`; others only if the frame has a place for them."""
    content: str | list[dict[str, JsonValue]] | None = None
    """Text, or parts of type `text`."""


class ChatRequest(_GenerationRequest):
    """The body of `POST /v1/chat/completions`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"messages": [{"role": "user", "content": "countdown:4,16,25,82=95"}]}]
        }
    )

    messages: list[ChatMessage] = Field(min_length=1, max_length=1024)
    """The last user message is the prompt."""
    max_completion_tokens: int | None = Field(default=None, ge=1)
    """The same as `max_tokens`."""
    logprobs: bool | None = None
    """Return the log-probabilities of each answer's tokens, at temperature 1."""
    reasoning_effort: ReasoningEffort | None = None
    """`none` decodes greedily; `low`, `medium` and `high` search with 1, 4 and 16 times the usual
    budget."""
    include_reasoning: bool | None = None
    """Describe the search in `reasoning` and `reasoning_content`; true by default."""


class CompletionRequest(_GenerationRequest):
    """The body of `POST /v1/completions`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prompt": "countdown:4,16,25,82=95"}]}
    )

    prompt: JsonValue
    """Text, token ids, or a list of either: one search each."""
    logprobs: int | None = Field(default=None, ge=0, le=20)
    """0 returns the log-probabilities of each answer's tokens, at temperature 1; more would name
    alternatives, which a search does not keep."""


class TokenizeRequest(_OpenRequest):
    """The body of `POST /tokenize`."""

    prompt: str = Field(max_length=100_000)
    """The text, without the checkpoint's frame."""
    add_special_tokens: bool = True
    """Add the tokens that the tokenizer puts before a text."""
    return_token_strs: bool | None = None
    """Return each token's text too."""


class DetokenizeRequest(_OpenRequest):
    """The body of `POST /detokenize`."""

    tokens: list[int] = Field(max_length=100_000)
    """Token ids."""
