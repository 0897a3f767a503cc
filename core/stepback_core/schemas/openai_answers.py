"""Answers of the OpenAI-compatible routes, and the chunks of their streams."""

from typing import Literal

from stepback_core.schemas.base import ResponseModel
from stepback_core.schemas.result import Answer, SolveResult, Status, StopReason, TreeNode, Usage

FinishReason = Literal["stop", "length"]


class PromptDetails(ResponseModel):
    """Details of the prompt's tokens."""

    cached_tokens: int
    """Tokens that the engine had in its prefix cache; at most all of the prompt."""


class CompletionDetails(ResponseModel):
    """Details of the generated tokens."""

    reasoning_tokens: int
    """Tokens that are not part of the answer: discarded branches."""


class OpenAiUsage(ResponseModel):
    """Cost of a call in OpenAI's terms."""

    prompt_tokens: int
    """Tokens of the framed prompts."""
    completion_tokens: int
    """All generated tokens, those of discarded branches included."""
    total_tokens: int
    """Prompt and completion tokens."""
    completion_tokens_details: CompletionDetails
    prompt_tokens_details: PromptDetails


class SearchReport(ResponseModel):
    """Report of the search, in the words of `/solve`."""

    id: str
    """The search's own name."""
    status: Status
    stop_reason: StopReason
    strategy: str
    """Value in use."""
    select: str
    """Value in use."""
    verified: bool | None
    """The checker's verdict on the first choice; null without a checker or an answer."""
    reason: str | None
    """Reason why the checker refused it."""
    warning: str | None = None
    """Reason to expect little: a problem unlike those that the model was trained for."""
    answer: Answer | None
    """The first choice, step by step."""
    usage: Usage
    tree: list[TreeNode] | None = None
    """The tree, if `tree` asks for it."""

    @classmethod
    def of(cls, result: SolveResult, *, tree: bool) -> "SearchReport":
        """Report on a result."""
        answer = result.answer
        return cls(
            id=result.id,
            status=result.status,
            stop_reason=result.stop_reason,
            strategy=result.strategy,
            select=result.select,
            verified=answer.verified if answer else None,
            reason=answer.reason if answer else None,
            warning=result.warning,
            answer=answer,
            usage=result.usage,
            tree=result.tree if tree else None,
        )


class OpenAiAnswer(ResponseModel):
    """Fields that every answer and every chunk of a stream begins with."""

    id: str
    created: int
    """Seconds since 1970."""
    model: str
    system_fingerprint: str
    """The first 12 digits of the weights' SHA-256."""


class TokenLogprob(ResponseModel):
    """One token of an answer."""

    token: str
    logprob: float
    """Natural log-probability, before temperature."""
    bytes: list[int] | None
    """The token in UTF-8; null where it is a part of a character."""
    top_logprobs: tuple[()] = ()
    """Always empty: a search keeps no alternatives."""


class ChatLogprobs(ResponseModel):
    """The tokens of a chat's answer; only with `logprobs`."""

    content: list[TokenLogprob]
    refusal: None = None


class CompletionLogprobs(ResponseModel):
    """The tokens of a completion; only with `logprobs`."""

    tokens: list[str]
    token_logprobs: list[float]
    """Natural log-probabilities, before temperature."""
    top_logprobs: None = None
    """Always null: a search keeps no alternatives."""
    text_offset: list[int]
    """Each token's place in the text."""


class AnswerMessage(ResponseModel):
    """The assistant's message."""

    role: Literal["assistant"] = "assistant"
    content: str
    """The answer alone; empty where the search found none."""
    reasoning: str | None = None
    """The search, a line each: `step ...`, `~~a step taken back~~`, `candidate ...`."""
    reasoning_content: str | None = None
    """The same, for clients that know this name."""
    refusal: None = None


class ChatChoice(ResponseModel):
    """One answer of a chat completion."""

    index: int
    message: AnswerMessage
    finish_reason: FinishReason
    """`stop` for an answer; `length` where there is none."""
    logprobs: ChatLogprobs | None = None


class ChatCompletion(OpenAiAnswer):
    """The answer of `POST /v1/chat/completions`."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]
    usage: OpenAiUsage
    stepback: SearchReport


class CompletionChoice(ResponseModel):
    """One answer of a completion."""

    index: int
    """The prompt's place times n, plus the answer's place."""
    text: str
    finish_reason: FinishReason | None
    logprobs: CompletionLogprobs | None = None


class Completion(OpenAiAnswer):
    """The answer of `POST /v1/completions`, and a chunk of its stream."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]
    usage: OpenAiUsage | None = None
    stepback: SearchReport | list[SearchReport] | None = None
    """Report of one prompt, or a list of them."""


class ChatDelta(ResponseModel):
    """Text that a chunk adds."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class ChunkChoice(ResponseModel):
    """One choice in a chunk."""

    index: int
    delta: ChatDelta
    finish_reason: FinishReason | None = None
    logprobs: ChatLogprobs | None = None


class ChatChunk(OpenAiAnswer):
    """One chunk of a streamed chat completion."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChunkChoice]
    usage: OpenAiUsage | None = None
    """Cost, in the last chunk, if `stream_options.include_usage` asks for it."""
    stepback: SearchReport | None = None
    """Report of the search, in the chunk that has the finish reason."""


class Tokens(ResponseModel):
    """The answer of `POST /tokenize`."""

    tokens: list[int]
    count: int
    max_model_len: int
    """The longest sequence, prompt included."""
    token_strs: list[str] | None = None
    """Texts of the tokens, if `return_token_strs` asks for them."""


class Text(ResponseModel):
    """The answer of `POST /detokenize`."""

    prompt: str


class TokenizerInfo(ResponseModel):
    """The answer of `GET /tokenizer_info`."""

    tokenizer_class: str
    vocab_size: int
    model_max_length: int
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None
    chat_template: None = None
    """Prompts are framed by the server."""
