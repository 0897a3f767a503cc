"""Families of models that vLLM serves, read off a configuration before any weights are."""

from typing import Any

import transformers
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from stepback_core.errors import InvalidInput

NATIVE_ALONE = frozenset({"BloomForCausalLM", "FalconForCausalLM", "GPTJForCausalLM"})
"""Served by vLLM's own code, though `transformers` gives them no attention that vLLM could take."""


def check_family(config: PreTrainedConfig, name: str) -> None:
    """Raise InvalidInput where vLLM could not serve what training makes of a base."""
    fields: dict[str, Any] = config.to_dict()
    if fields.get("is_encoder_decoder"):
        raise InvalidInput(f"{name}: config.json: is_encoder_decoder: take a decoder alone")
    if isinstance(fields.get("text_config"), dict):
        raise InvalidInput(
            f"{name}: config.json: text_config: the language model is nested in a model of images "
            "or sound; take the text model alone (for Gemma 3 that is the 1B, or its text_config "
            "saved as a model of its own)"
        )
    architecture = _architecture(config, name)
    if not is_served(architecture):
        raise InvalidInput(
            f"{name}: config.json: architectures: vLLM does not serve {architecture}; take another "
            "family, such as Llama, Qwen, Gemma, OLMo, Phi, GPT-2 or GPT-NeoX (Pythia)"
        )


def is_served(architecture: str) -> bool:
    """Tell whether vLLM serves a causal model: by its own code, or on top of `transformers`."""
    if architecture in NATIVE_ALONE:
        return True
    model: Any = getattr(transformers, architecture, None)
    # The condition of vLLM for what it has no code of its own for. All that it has some for and
    # that transformers can train fulfil it too, but for the three above.
    return model is not None and (
        model.is_backend_compatible() or model._can_set_attn_implementation()
    )


def _architecture(config: PreTrainedConfig, name: str) -> str:
    found: Any = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    if found is None:
        raise InvalidInput(
            f"{name}: config.json: model_type: {config.model_type} is no causal model"
        )
    return found if isinstance(found, str) else found[0]
