"""Log-probabilities of an answer's tokens, in OpenAI's form. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from stepback_core.schemas import Answer
from stepback_core.schemas.openai_answers import (
    ChatLogprobs,
    CompletionLogprobs,
    TokenLogprob,
)
from stepback_core.trace import TraceCodec

_UNREADABLE = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class AnswerToken:
    """One token of an answer's text."""

    text: str
    offset: int
    """Its place in the text."""
    logprob: float


def tokens_of(answer: Answer, text: str, codec: TraceCodec) -> list[AnswerToken]:
    """The tokens that make up a text that the answer begins with."""
    ids = answer.token_ids or []
    # Given steps are part of the answer's text, and not of its tokens.
    begin = len(answer.text) - len(codec.grammar.separator.join(codec.decode_steps(ids)))
    pairs = zip(ids, answer.logprobs or [], strict=True)
    body = [(token, logprob) for token, logprob in pairs if token not in codec.tokens.stop_ids]
    whole = _decoded([token for token, _ in body], codec)
    # A character may take several tokens: their texts are what each adds to those before.
    ends = [len(_decoded([token for token, _ in body[:count]], codec)) for count in _counts(body)]
    return [
        AnswerToken(whole[start:end], begin + start, logprob)
        for start, end, (_, logprob) in zip([0, *ends], ends, body, strict=False)
        # Tokens after a stop are not part of the text.
        if begin + start < len(text)
    ]


def chat_logprobs(tokens: Sequence[AnswerToken]) -> ChatLogprobs:
    """Token fields of a choice of a chat."""
    return ChatLogprobs(
        content=[
            TokenLogprob(
                token=token.text,
                logprob=token.logprob,
                # Half a character has no bytes of its own here: better none than those of the sign
                # that stands for it.
                bytes=None if _UNREADABLE in token.text else list(token.text.encode()),
            )
            for token in tokens
        ]
    )


def completion_logprobs(tokens: Sequence[AnswerToken]) -> CompletionLogprobs:
    """Token fields of a choice of a completion."""
    return CompletionLogprobs(
        tokens=[token.text for token in tokens],
        token_logprobs=[token.logprob for token in tokens],
        text_offset=[token.offset for token in tokens],
    )


def _counts(body: Sequence[object]) -> range:
    return range(1, len(body) + 1)


def _decoded(ids: Sequence[int], codec: TraceCodec) -> str:
    return codec.tokenizer.decode(list(ids), skip_special_tokens=False)
