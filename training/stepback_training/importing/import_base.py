"""`stepback import`: a folder that is served and trained, out of any causal model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from stepback_core.errors import InvalidInput
from stepback_core.manifest import Manifest
from stepback_core.trace import TraceCodec
from stepback_training.bases.grammar import Adopted, Wishes, adopt, checked_codec
from stepback_training.bases.source import BaseSource
from stepback_training.importing.adapter import Adapter
from stepback_training.train.checkpoint import export
from stepback_training.train.model import add_token_rows, embedding_rows


@dataclass(frozen=True, slots=True)
class Import:
    """The model to import, and its new name."""

    base: str
    folder: Path
    name: str
    wishes: Wishes
    tasks: list[str]
    adapter: Path | None = None
    """A folder of PEFT, which is merged into the model."""
    untie: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """Result of an import."""

    manifest: Manifest
    adopted: Adopted
    is_tied: bool
    """Its head is its embedding, which vLLM does not take new weights for while it serves."""


def import_base(order: Import) -> Imported:
    """Write the folder. Raises InvalidInput that names the part, if possible before any weights are
    read."""
    source = BaseSource.at(order.base)
    if order.folder.resolve() == Path(source.path).resolve():
        raise InvalidInput(
            f"{order.folder}: it is the base itself, which stays as it is: name another"
        )
    adapter = Adapter.at(order.adapter) if order.adapter else None
    of_adapter = adapter.manifest if adapter else None
    if of_adapter and (order.tasks or order.wishes != Wishes()):
        raise InvalidInput(
            f"{order.adapter}: the adapter says what its marker, separator, end, frame and tasks "
            "are: give none of them"
        )
    source.check_family()
    tokenizer = source.open_tokenizer()
    known = of_adapter or source.manifest
    adopted = adopt(tokenizer, order.wishes, known.grammar if known else None)
    codec = checked_codec(adopted.grammar, tokenizer, source.name)
    model = source.open_model(torch.bfloat16 if source.gguf else "auto")
    dtype = model.dtype
    if adapter and not of_adapter:
        # Trained elsewhere, it knows nothing of new tokens.
        model = adapter.merged_into(model.float())
    add_token_rows(model, adopted.new_ids, len(tokenizer))
    if adapter and of_adapter:
        _check_ids(adapter, of_adapter, codec, embedding_rows(model))
        model = adapter.merged_into(model.float())
    if order.untie:
        untie(model)
    manifest = _manifest(order, source, codec, embedding_rows(model), known)
    if of_adapter:
        manifest = of_adapter.model_copy(update={"name": order.name, "base_model": source.name})
    export(order.folder, model, tokenizer, manifest, dtype=dtype)
    _check_served(order.folder, codec)
    return Imported(manifest, adopted, is_tied(model))


def is_tied(model: PreTrainedModel) -> bool:
    """Tell whether the head is the embedding."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    return cast("nn.Embedding", embedding).weight is cast("nn.Linear", head).weight


def untie(model: PreTrainedModel) -> None:
    """Give the head weights of its own, as they are now."""
    if is_tied(model):
        model.config.tie_word_embeddings = False
        head = cast("nn.Linear", model.get_output_embeddings())
        head.weight = nn.Parameter(head.weight.detach().clone())


def _check_ids(adapter: Adapter, trained: Manifest, codec: TraceCodec, rows: int) -> None:
    """Raise InvalidInput where the adapter's tokens have other ids in the base."""
    ours = (codec.tokens.marker_id, codec.tokens.end_id, rows)
    if ours != (trained.marker_id, trained.end_id, trained.vocabulary_size):
        raise InvalidInput(
            f"{adapter.folder}: the adapter was trained on another base, {trained.base_model}: its "
            "vocabulary is another"
        )


def _manifest(
    order: Import, source: BaseSource, codec: TraceCodec, rows: int, known: Manifest | None
) -> Manifest:
    return Manifest(
        name=order.name,
        grammar=codec.grammar,
        marker_id=codec.tokens.marker_id,
        end_id=codec.tokens.end_id,
        separator_ids=codec.encode_step(""),
        vocabulary_size=rows,
        tasks=order.tasks or (known.tasks if known else []),
        base_model=source.name,
        split="unknown: an imported model",
    )


def _check_served(folder: Path, codec: TraceCodec) -> None:
    """Raise InvalidInput where the tokenizer, as the server reads it, is another one."""
    loader: Any = PreTrainedTokenizerFast
    try:
        served = TraceCodec.of(codec.grammar, loader.from_pretrained(folder, local_files_only=True))
    except ValueError as error:
        raise InvalidInput(f"{folder}: tokenizer.json: {error}") from error
    for text in ("1+2=3", "Is Sally a hilpus?", "a  b\tc\n", "\u00e4\u4e2d\U0001f600"):
        if served.encode_prompt(text) != codec.encode_prompt(text):
            raise InvalidInput(f"{folder}: tokenizer.json encodes {text!r} otherwise than the base")
