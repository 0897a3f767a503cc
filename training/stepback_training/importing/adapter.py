"""A low-rank adapter of PEFT that an import merges into its base."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from stepback_core.errors import InvalidInput
from stepback_core.manifest import MANIFEST_NAME, Manifest
from stepback_training.train.lora import ADAPTER_CONFIG, lookups


@dataclass(frozen=True, slots=True)
class Adapter:
    """A folder with an adapter: one that `stepback train` wrote, or any other of PEFT."""

    folder: Path

    @classmethod
    def at(cls, folder: Path) -> "Adapter":
        """Raises InvalidInput where there is none, or where PEFT is not installed."""
        if not (folder / ADAPTER_CONFIG).is_file():
            raise InvalidInput(f"{folder / ADAPTER_CONFIG}: there is none, so this is no adapter")
        try:
            import peft  # noqa: F401  # pyright: ignore[reportUnusedImport]
        except ModuleNotFoundError as error:
            raise InvalidInput(
                f"{error.name} is not installed, and an adapter needs it: install this "
                "distribution with its extras [training,lora]"
            ) from error
        return cls(folder)

    @property
    def manifest(self) -> Manifest | None:
        """Grammar and tasks of the training that it is from; None of a training elsewhere."""
        return Manifest.read(self.folder) if (self.folder / MANIFEST_NAME).exists() else None

    def merged_into(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return the model with the adapter in its weights. Raises InvalidInput for an adapter of
        another model."""
        from peft import PeftConfig, PeftModel, get_peft_model_state_dict
        from peft.utils import load_peft_weights

        try:
            config: Any = PeftConfig.from_pretrained(str(self.folder))
            self._check_head(config, model)
            saved = load_peft_weights(str(self.folder), device="cpu")
            with warnings.catch_warnings():
                # Of matrices that the file lacks; they are an error below.
                warnings.filterwarnings("ignore", "Found missing adapter keys")
                adapted: Any = PeftModel.from_pretrained(model, str(self.folder), config=config)
        except Exception as error:  # PEFT raises whatever a file that does not fit makes it meet.
            told = " ".join(str(error).split())[:300]
            raise InvalidInput(
                f"{self.folder}: the adapter does not fit the base: {told}"
            ) from error
        if other := sorted(saved.keys() ^ get_peft_model_state_dict(adapted).keys()):
            raise InvalidInput(
                f"{self.folder}: the adapter is of another model: {len(other)} of its matrices and "
                f"the base's do not meet, such as {other[0]}"
            )
        merged: PreTrainedModel = adapted.merge_and_unload()
        return merged

    def _check_head(self, config: Any, model: PreTrainedModel) -> None:
        # Of each new token: a row of the embedding, and one of the head where that has its own.
        rows = getattr(config, "trainable_token_indices", None)
        if isinstance(rows, dict) and len(rows) != len(lookups(model)):
            tied, untied = "a base whose head is its embedding", "a base with a head of its own"
            this, other = (tied, untied) if len(rows) == 1 else (untied, tied)
            raise InvalidInput(f"{self.folder}: the adapter is for {this}, and this is {other}")
