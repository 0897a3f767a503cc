"""The checkpoint's tokenizer over HTTP, in the words of vLLM's routes."""

from stepback_core.schemas.openai import DetokenizeRequest, TokenizeRequest
from stepback_core.schemas.openai_answers import Text, TokenizerInfo, Tokens
from stepback_server.api.openai.parameters import unsupported
from stepback_server.checkpoint import Checkpoint
from stepback_server.errors import ApiError


def tokenize(body: TokenizeRequest, checkpoint: Checkpoint) -> Tokens:
    """Return the ids of a text, without the checkpoint's frame."""
    if "messages" in body.extra:
        raise unsupported("messages", "send the text as `prompt`")
    codec = checkpoint.codec
    ids = codec.tokenizer.encode(body.prompt, add_special_tokens=False)
    if body.add_special_tokens:
        ids = [*codec.prefix_ids, *ids]
    texts = [codec.tokenizer.decode([each], skip_special_tokens=False) for each in ids]
    return Tokens(
        tokens=ids,
        count=len(ids),
        max_model_len=checkpoint.context_tokens,
        token_strs=texts if body.return_token_strs else None,
    )


def detokenize(body: DetokenizeRequest, checkpoint: Checkpoint) -> Text:
    """Return the text of ids, special tokens included."""
    tokenizer = checkpoint.codec.tokenizer
    size = len(tokenizer)
    wrong = next((each for each in body.tokens if not 0 <= each < size), None)
    if wrong is not None:
        raise ApiError(
            "invalid_value",
            f"tokens: there is no token {wrong}; ids go from 0 to {size - 1}",
            param="tokens",
        )
    return Text(prompt=tokenizer.decode(body.tokens, skip_special_tokens=False))


def describe(checkpoint: Checkpoint) -> TokenizerInfo:
    """Describe the tokenizer: its special tokens and its size."""
    codec = checkpoint.codec
    return TokenizerInfo(
        tokenizer_class=type(codec.tokenizer).__name__,
        vocab_size=len(codec.tokenizer),
        model_max_length=checkpoint.context_tokens,
        bos_token=_special(codec.tokenizer, "bos_token"),
        eos_token=codec.grammar.end,
        pad_token=_special(codec.tokenizer, "pad_token"),
        unk_token=_special(codec.tokenizer, "unk_token"),
    )


def _special(tokenizer: object, name: str) -> str | None:
    token = getattr(tokenizer, name, None)
    return token if isinstance(token, str) else None
