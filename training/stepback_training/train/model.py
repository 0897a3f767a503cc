"""The model that training starts from: a small Llama, or any Hugging Face causal model."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, cast

import torch
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from stepback_core.errors import InvalidInput
from stepback_core.trace import Grammar
from stepback_training.bases.grammar import Wishes, adopt, checked_codec
from stepback_training.bases.source import BaseSource
from stepback_training.config import BaseModelChoice, Recipe, ScratchModel, TrainRecipe
from stepback_training.train.tokenizer import make_tokenizer

# Typed in part only by transformers; trace.py's protocol says what is used of it.
AnyTokenizer: TypeAlias = Any

# Tokens of the longest row for which the plain attention was measured to be the faster one on a
# CPU, by whether it is compiled. Its memory grows with their square.
_SHORT_ROW = {False: 128, True: 512}


def make_model(
    recipe: Recipe, characters: Iterable[str] = ()
) -> tuple[PreTrainedModel, AnyTokenizer, Grammar]:
    """Return the untrained model, its tokenizer with the marker in it, and the grammar of both. A
    model from scratch reads ASCII and the `characters` of its samples."""
    # Before any weight is made.
    torch.manual_seed(recipe.seed)
    if recipe.scratch is not None:
        grammar = Grammar(separator=recipe.data.separator)
        tokenizer = make_tokenizer(
            grammar,
            tasks=recipe.data.names,
            digits_per_token=recipe.scratch.digits_per_token,
            characters=characters,
        )
        model = _from_scratch(recipe.scratch, tokenizer)
    else:
        assert recipe.base is not None
        model, tokenizer, grammar = _from_base(recipe.base, recipe.data.separator)
    _set_attention(model, recipe.train)
    return model, tokenizer, grammar


def _set_attention(model: PreTrainedModel, fit: TrainRecipe) -> None:
    attention = attention_of(fit, on_gpu=torch.cuda.is_available())
    if attention is None:
        return
    model.set_attn_implementation(attention)
    # Of a model whose attention cannot be chosen transformers only warns.
    if fit.attention != "auto" and model.config._attn_implementation != attention:
        raise ValueError(f"train.attention: this model has no {attention}; leave it at auto")


def attention_of(fit: TrainRecipe, *, on_gpu: bool) -> str | None:
    """Choose an attention of `transformers` for a training; None for the model's own."""
    if fit.attention != "auto":
        return fit.attention
    is_short = fit.row_tokens <= _SHORT_ROW[fit.compile]
    return "eager" if is_short and not on_gpu else None


def _from_scratch(shape: ScratchModel, tokenizer: AnyTokenizer) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.max_positions,
        # Untied: with tied embeddings vLLM on a CPU keeps the old head when weights are reloaded.
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def _from_base(
    base: BaseModelChoice, separator: str = "\n"
) -> tuple[PreTrainedModel, AnyTokenizer, Grammar]:
    """The base, refused before its weights are read where it could not be served in the end."""
    source = BaseSource.at(base.path)
    source.check_family()
    tokenizer = source.open_tokenizer()
    known = source.manifest
    if known and known.grammar.separator != separator:
        raise InvalidInput(
            f"[data] separator is {separator!r}, but {base.path} closes its steps with "
            f"{known.grammar.separator!r}: name that one"
        )
    wishes = Wishes(separator=separator, prompt_frame=base.prompt_frame)
    adopted = adopt(tokenizer, wishes, known.grammar if known else None)
    checked_codec(adopted.grammar, tokenizer, source.name)
    # Trained in float32: the autocast of the Trainer makes bfloat16 of what is computed.
    model = source.open_model(torch.float32)
    add_token_rows(model, adopted.new_ids, len(tokenizer))
    return model, tokenizer, adopted.grammar


def add_token_rows(model: PreTrainedModel, new_ids: Sequence[int], vocabulary_size: int) -> None:
    """Give new tokens rows in the embedding and in the head, each the mean of the older rows."""
    if embedding_rows(model) < vocabulary_size:
        model.resize_token_embeddings(vocabulary_size, mean_resizing=False)
    if not new_ids:
        return
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            rows = cast("nn.Linear | nn.Embedding", layer).weight
            # A random row would be far from all others, and its first losses large.
            rows[list(new_ids)] = rows[: min(new_ids)].mean(0)


def embedding_rows(model: PreTrainedModel) -> int:
    """Tokens that the model embeds, padding rows included."""
    return cast("nn.Embedding", model.get_input_embeddings()).weight.shape[0]
