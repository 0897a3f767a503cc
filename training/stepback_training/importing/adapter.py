"""A low-rank adapter of PEFT that an import merges into its base."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from stepback_core.errors import InvalidInput
from stepback_core.manifest import MANIFEST_NAME, Manifest
from stepback_training.bases.source import ADAPTER_CONFIG, one_line
from stepback_training.train.lora import changes_a_shared_head, lookups

_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True, slots=True)
class Adapter:
    """A folder with an adapter: one that `stepback train` wrote, or one of PEFT from elsewhere."""

    folder: Path
    config: Any
    """PEFT's configuration of it."""
    manifest: Manifest | None
    """Grammar and tasks of the training that it is from; None of a training elsewhere."""

    @classmethod
    def at(cls, folder: Path) -> "Adapter":
        """Raises InvalidInput for a folder without one, for a kind that no weights can take, and
        where PEFT is not installed."""
        if not folder.is_dir():
            raise InvalidInput(
                f"{folder}: there is no such folder; one of the hub is fetched first"
            )
        if not (folder / ADAPTER_CONFIG).is_file():
            raise InvalidInput(f"{folder / ADAPTER_CONFIG}: there is none, so this is no adapter")
        if not any((folder / name).is_file() for name in _WEIGHTS):
            raise InvalidInput(f"{folder / _WEIGHTS[0]}: there is none; the adapter has no weights")
        try:
            from peft import PeftConfig
        except ModuleNotFoundError as error:
            raise InvalidInput(
                f"{error.name} is not installed, and an adapter needs it: install this "
                "distribution with its extras [training,lora]"
            ) from error
        try:
            config: Any = PeftConfig.from_pretrained(str(folder))
        except Exception as error:  # PEFT raises whatever a broken file makes it meet.
            raise InvalidInput(f"{folder / ADAPTER_CONFIG}: {one_line(error)}") from error
        if config.is_prompt_learning:
            kind = str(getattr(config.peft_type, "value", config.peft_type))
            raise InvalidInput(f"{folder}: no weights can take an adapter of this kind ({kind})")
        # Else PEFT looks there whether the vocabulary has grown, and asks the hub for it.
        config.base_model_name_or_path = ""
        has_manifest = (folder / MANIFEST_NAME).exists()
        return cls(folder, config, Manifest.read(folder) if has_manifest else None)

    def check_tokens(self, words: int) -> None:
        """Refuse an adapter with rows for other tokens than the base's, `words` of them. Raises
        InvalidInput."""
        rows = self.config.to_dict().get("trainable_token_indices") or []
        lists = rows.values() if isinstance(rows, dict) else [rows]
        if any(token >= words for tokens in lists for token in tokens):
            raise InvalidInput(
                f"{self.folder}: the adapter has rows for tokens that the base lacks; of a "
                "training of Stepback give the folder adapter/"
            )

    def merged_into(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return the model with the adapter in its weights. Raises InvalidInput for an adapter of
        another model."""
        from peft import PeftModel, get_peft_model_state_dict
        from peft.utils import load_peft_weights

        if self.manifest:
            self._check_head(len(lookups(model)))
        try:
            saved = load_peft_weights(str(self.folder), device="cpu")
            # PEFT warns of what is refused below, and of embeddings that it finds in the file.
            with warnings.catch_warnings(action="ignore"):
                adapted: Any = PeftModel.from_pretrained(
                    model, str(self.folder), config=self.config
                )
                known = get_peft_model_state_dict(adapted)
        except MemoryError:
            raise
        except Exception as error:  # PEFT raises whatever a file that does not fit makes it meet.
            told = one_line(error)
            raise InvalidInput(
                f"{self.folder}: the adapter does not fit the base: {told}"
            ) from error
        if other := sorted(saved.keys() ^ known.keys()):
            raise InvalidInput(
                f"{self.folder}: the adapter is of another model: {len(other)} of its matrices and "
                f"the base's do not meet, such as {other[0]}"
            )
        if changes_a_shared_head(adapted):
            raise InvalidInput(
                f"{self.folder}: the adapter changes the head or the embedding, which are one in "
                "the base: import the base by --untie, and merge the adapter into that"
            )
        merged: PreTrainedModel = adapted.merge_and_unload()
        return merged

    def _check_head(self, lookups_of_base: int) -> None:
        # A training here has a row of the embedding, and one of the head where that has its own.
        rows = self.config.trainable_token_indices
        if len(rows) != lookups_of_base:
            tied, untied = "a base whose head is its embedding", "a base with a head of its own"
            this, other = (tied, untied) if len(rows) == 1 else (untied, tied)
            raise InvalidInput(f"{self.folder}: the adapter is for {this}, and this is {other}")
