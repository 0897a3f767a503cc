"""Low-rank adapters by PEFT: put on a base model, saved with a checkpoint, merged at the export.

[lora]
rank = 16
alpha = 32
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from torch import nn
from transformers import PreTrainedModel

from stepback_core.manifest import Manifest
from stepback_training.bases.source import ADAPTER_CONFIG
from stepback_training.config import LoraRecipe
from stepback_training.train.checkpoint import whole_folder
from stepback_training.train.distributed import FSDP, sharding

# An extra of its own: most installs do without.
if TYPE_CHECKING:
    from peft import PeftModel

_FILES = (ADAPTER_CONFIG, "adapter_model.safetensors")

TrainedModel: TypeAlias = "PreTrainedModel | PeftModel"
"""A model that is trained, whole or by its adapters."""


def add_adapter(model: PreTrainedModel, lora: LoraRecipe, marker_id: int) -> "PeftModel":
    """Add adapters to a model and freeze its other weights, but for the marker's rows in the
    embedding and in the head."""
    try:
        from peft import LoraConfig, PeftModel, get_peft_model
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{error.name} is not installed, and [lora] needs it: "
            "pip install 'stepback-llm[training,lora]'"
        ) from error
    names = lookups(model)
    if sharding() == FSDP and len(names) == 1:
        raise ValueError(
            "[lora] on a model whose head is its embedding does not go with FSDP, which would no "
            "longer see that they are one: launch with ZeRO-2, or plain data-parallel processes"
        )
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        # PEFT says int, and only divides it by the rank.
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        trainable_token_indices={name: [marker_id] for name in names},
    )
    adapted = get_peft_model(model, config)
    # The other kind mixes adapters of several methods, if it is asked to.
    assert isinstance(adapted, PeftModel)
    # Without a name to compare vocabularies with, PEFT saves no second copy of the embedding, which
    # every start makes again from the base model anyway.
    adapted.peft_config["default"].base_model_name_or_path = ""
    if changes_a_shared_head(adapted):
        raise ValueError(
            "[lora] target_modules: the head of this model is its embedding, and one cannot change "
            "without the other: leave both out, or import the base by --untie"
        )
    return adapted


def load_adapter(model: "PeftModel", checkpoint: Path) -> None:
    """Put the adapters of a resumable checkpoint into a model that has such adapters."""
    model.load_adapter(str(checkpoint), "default", is_trainable=True)


def export_adapter(folder: Path, checkpoint: Path, manifest: Manifest) -> None:
    """Write the adapters of a resumable checkpoint to a folder of their own, which an import merges
    into the base: its grammar and tasks are in there too. It appears whole. Raises OSError."""
    with whole_folder(folder) as staging:
        for name in _FILES:
            shutil.copyfile(checkpoint / name, staging / name)
        manifest.write(staging)


def merged(model: Any) -> PreTrainedModel:
    """A plain model with the adapters in its weights; a plain model stays as it is."""
    # Any: the wrapper of torch.compile is neither kind of model, and passes attributes on.
    merge = getattr(model, "merge_and_unload", None)
    return model if merge is None else merge()


def changes_a_shared_head(model: "PeftModel") -> bool:
    """Tell whether adapters are on the head or the embedding of a model where both are one. Merged,
    the change of one would be in the other, too."""
    base: Any = model.get_base_model()
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    # A row that is trained is in a wrapper, too; both sides are meant to have that.
    adapted = [hasattr(end, "lora_A") or hasattr(end, "lora_embedding_A") for end in ends]
    return bool(getattr(base.config, "tie_word_embeddings", False)) and any(adapted)


def lookups(model: PreTrainedModel) -> list[str]:
    """The names of the embedding and, where it has weights of its own, of the head."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {id(module): name for name, module in model.named_modules()}
    untied = cast("nn.Embedding", embedding).weight is not cast("nn.Linear", head).weight
    return [names[id(module)] for module in ([embedding, head] if untied else [embedding])]
