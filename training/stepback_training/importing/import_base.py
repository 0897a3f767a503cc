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
    for what, path in (("base", source.path), ("adapter", order.adapter)):
        if path and order.folder.resolve() == Path(path).resolve():
            raise InvalidInput(
                f"{order.folder}: it is the {what} itself, which stays as it is: name another"
            )
    adapter = _adapter(order)
    trained = adapter.manifest if adapter else None
    source.check_family()
    tokenizer = source.open_tokenizer()
    if adapter and not trained:
        adapter.check_tokens(len(tokenizer))
    known = trained or source.manifest
    adopted = adopt(tokenizer, order.wishes, known.grammar if known else None)
    codec = checked_codec(adopted.grammar, tokenizer, source.name)
    if adapter and trained:
        _check_ids(adapter, trained, codec)
    model, dtype = _weights(source, adapter, adopted, len(tokenizer))
    if order.untie:
        untie(model)
    if trained:
        names = {"name": order.name, "base_model": source.name}
        manifest = trained.model_copy(update=names)
    else:
        manifest = _manifest(order, source, codec, embedding_rows(model), known)
    export(order.folder, model, tokenizer, manifest, dtype=dtype)
    _check_served(order.folder, codec)
    return Imported(manifest, adopted, is_tied(model))


def _adapter(order: Import) -> Adapter | None:
    if order.adapter is None:
        return None
    adapter = Adapter.at(order.adapter)
    if adapter.manifest and (order.tasks or order.wishes != Wishes()):
        raise InvalidInput(
            f"{order.adapter}: the adapter says what its marker, separator, end, frame and tasks "
            "are: give none of them"
        )
    return adapter


def _weights(
    source: BaseSource, adapter: Adapter | None, adopted: Adopted, words: int
) -> tuple[PreTrainedModel, torch.dtype]:
    """The model with rows for `words` tokens and with the adapter merged, and the precision to
    write it in."""
    if adapter is None:
        model = source.open_model(torch.bfloat16 if source.gguf else "auto")
        add_token_rows(model, adopted.new_ids, words)
        return model, model.dtype
    # A merge is exact in float32, which is also what a training opens a GGUF file in.
    model = source.open_model(torch.float32 if source.gguf else "auto")
    dtype = torch.bfloat16 if source.gguf else model.dtype
    model = model.float()
    if not adapter.manifest:
        # Trained elsewhere, it knows nothing of new tokens.
        model = adapter.merged_into(model)
    add_token_rows(model, adopted.new_ids, words)
    if adapter.manifest:
        if embedding_rows(model) != adapter.manifest.vocabulary_size:
            raise _of_another_base(adapter, adapter.manifest)
        model = adapter.merged_into(model)
    return model, dtype


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


def _check_ids(adapter: Adapter, trained: Manifest, codec: TraceCodec) -> None:
    """Raise InvalidInput where the adapter's tokens have other ids in the base."""
    ours = (codec.tokens.marker_id, codec.tokens.end_id, codec.encode_step(""))
    if ours != (trained.marker_id, trained.end_id, trained.separator_ids):
        raise _of_another_base(adapter, trained)


def _of_another_base(adapter: Adapter, trained: Manifest) -> InvalidInput:
    return InvalidInput(
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
