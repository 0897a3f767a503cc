"""The served checkpoint: opened only if its parts agree."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from stepback_core.errors import InvalidInput
from stepback_core.manifest import MANIFEST_NAME, Manifest, weights_digest
from stepback_core.tasks import TASKS
from stepback_core.trace import TokenGrammar, Tokenizer, TraceCodec


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The checkpoint that the server serves."""

    folder: Path
    manifest: Manifest
    codec: TraceCodec
    context_tokens: int
    """The longest sequence, prompt included."""
    digest: str
    """SHA-256 of the weights."""

    @property
    def unknown_id(self) -> int | None:
        """The token for what the vocabulary lacks; None if it lacks nothing."""
        return getattr(self.codec.tokenizer, "unk_token_id", None)

    @property
    def written_at(self) -> int:
        """Time at which the manifest was written, in seconds since 1970; 0 if the file is gone."""
        try:
            return int((self.folder / MANIFEST_NAME).stat().st_mtime)
        except OSError:
            return 0

    def longest_answer(self, task: str | None) -> int:
        """The most tokens that a branch may generate for a task, or for a bare prompt."""
        of_any = self.manifest.answer_tokens or self.context_tokens
        return self.manifest.task_answer_tokens.get(task or "", of_any)

    @classmethod
    def open(cls, folder: Path) -> "Checkpoint":
        """Open a folder. Raises InvalidInput where manifest, tokenizer, configuration and
        weights do not agree."""
        if not folder.is_dir():
            hint = _how_to_make_one(folder)
            raise InvalidInput(f"{folder}: there is no such folder (STEPBACK_MODEL names it){hint}")
        _refuse_adapter(folder)
        try:
            manifest = Manifest.read(folder)
        except InvalidInput as error:
            raise InvalidInput(f"{error}{_how_to_make_one(folder)}") from error
        config = _read_config(folder)
        codec = _open_codec(folder, manifest)
        _agree_on_ids(folder, manifest, codec)
        _agree_on_size(folder, manifest, codec, config)
        for task in manifest.tasks:
            if task not in TASKS:
                raise InvalidInput(
                    f"{folder}/stepback.json: tasks: there is no task {task!r} here; if a plug-in "
                    f"has it, install that and set STEPBACK_TASKS={task}"
                )
        context = _context(folder, config)
        try:
            digest = weights_digest(folder)
        except OSError as error:
            raise InvalidInput(f"{folder}: the weights cannot be read ({error})") from error
        return cls(folder, manifest, codec, context, digest)


def _refuse_adapter(folder: Path) -> None:
    if (folder / "adapter_config.json").exists() and not any(folder.glob("model*.safetensors")):
        raise InvalidInput(
            f"{folder}: it is an adapter: `stepback import BASE --adapter {folder} --out FOLDER` "
            "merges it into its base"
        )


def _how_to_make_one(folder: Path) -> str:
    """The command for a model that was trained elsewhere."""
    is_file = folder.is_file() and folder.suffix == ".gguf"
    if (folder / MANIFEST_NAME).exists() or not (is_file or (folder / "config.json").exists()):
        return ""
    return f": make a folder that has one by `stepback import {folder} --out FOLDER`"


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path}: cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise InvalidInput(f"{path}: is not a JSON object")
    return cast("dict[str, Any]", config)


def _open_codec(folder: Path, manifest: Manifest) -> TraceCodec:
    # Imported here: transformers takes seconds, and importing this module should not.
    from transformers import PreTrainedTokenizerFast
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity(logging.ERROR)
    try:
        # Not AutoTokenizer: that imports torch, which a controller over remote engines lacks.
        # Typed in part only; the protocol in trace.py says what is used of it.
        loader: Any = PreTrainedTokenizerFast
        tokenizer: Tokenizer = loader.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises whatever a broken file makes it meet
        raise InvalidInput(f"{folder}: the tokenizer cannot be loaded ({error!r})") from error
    try:
        codec = TraceCodec.of(manifest.grammar, tokenizer)
        codec.check_tokenizer()
        return codec
    except ValueError as error:
        raise InvalidInput(f"{folder}: tokenizer against stepback.json: {error}") from error


def _agree_on_ids(folder: Path, manifest: Manifest, codec: TraceCodec) -> None:
    tokens: TokenGrammar = codec.tokens
    for part, said, found in (
        ("marker_id", manifest.marker_id, tokens.marker_id),
        ("end_id", manifest.end_id, tokens.end_id),
        ("separator_ids", manifest.separator_ids, codec.encode_step("")),
    ):
        if said != found:
            raise InvalidInput(
                f"{folder}/stepback.json: {part} is {said}, but the tokenizer has {found}"
            )


def _agree_on_size(
    folder: Path, manifest: Manifest, codec: TraceCodec, config: dict[str, Any]
) -> None:
    rows = config.get("vocab_size")
    if manifest.vocabulary_size != rows:
        raise InvalidInput(
            f"{folder}/stepback.json: vocabulary_size is {manifest.vocabulary_size}, but "
            f"config.json: vocab_size is {rows}"
        )
    # Families call their embedding by many names; each has a matrix with a row a token.
    shapes = tensor_shapes(folder).values()
    if not any(len(shape) == 2 and shape[0] == rows for shape in shapes):
        raise InvalidInput(
            f"{folder}/config.json: vocab_size is {rows}, but the weights have no embedding with "
            "as many rows"
        )
    if len(codec.tokenizer) > manifest.vocabulary_size:
        raise InvalidInput(
            f"{folder}: the tokenizer has {len(codec.tokenizer)} tokens, the weights embed {rows}"
        )


# Config fields in which vLLM finds the longest sequence, by family.
_CONTEXT_FIELDS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
# vLLM's own choice for families that set no limit (ALiBi, as Bloom has it).
_CONTEXT_WITHOUT = 2048


def _context(folder: Path, config: dict[str, Any]) -> int:
    found = [config[name] for name in _CONTEXT_FIELDS if config.get(name) is not None]
    if not all(isinstance(each, int) and each > 0 for each in found):
        raise InvalidInput(f"{folder}/config.json: the longest sequence is no number: {found}")
    return min(found, default=_CONTEXT_WITHOUT)


def tensor_shapes(folder: Path) -> dict[str, list[int]]:
    """The shapes of a folder's weights, by name. Raises InvalidInput."""
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InvalidInput(f"{folder}: there are no weights (*.safetensors)")
    shapes: dict[str, list[int]] = {}
    for path in files:
        try:
            with cast("Any", safe_open)(path, framework="np") as weights:
                for name in weights.keys():  # noqa: SIM118 - not a mapping
                    shapes[name] = [int(size) for size in weights.get_slice(name).get_shape()]
        except (OSError, SafetensorError) as error:
            raise InvalidInput(f"{path}: the weights cannot be read ({error})") from error
    return shapes
