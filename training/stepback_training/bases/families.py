"""Families of models that vLLM serves, read off a configuration before any weights are."""

import re
from typing import Any

import transformers
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
)

from stepback_core.errors import InvalidInput

NATIVE_ALONE = frozenset(
    f"{name}ForCausalLM"
    for name in (
        *("Bloom", "Falcon", "GPTJ"),
        *("DeepseekV4", "FalconH1", "FalconMamba", "GraniteMoeHybrid", "Jamba", "KimiLinear"),
        *("Mamba", "Mamba2", "NemotronH", "OlmoHybrid", "Qwen3Next", "Qwen3_5", "Qwen3_5Moe"),
        *("Qwen4Exp", "Zamba2"),
    )
)
"""Served by vLLM's own code alone: `transformers` gives them no attention that vLLM could take, or
they have a recurrent state, which vLLM keeps for no model of theirs."""

_WITH_ENCODER = {
    *MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    *MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
}
_WITH_HEAD = re.compile("CausalLM|LMHead|DoubleHeads")
"""Parts of the names of classes that predict the next token."""


def check_family(config: PreTrainedConfig, name: str) -> None:
    """Raise InvalidInput where vLLM could not serve what training makes of a base."""
    fields: dict[str, Any] = config.to_dict()
    if isinstance(fields.get("text_config"), dict):
        raise InvalidInput(
            f"{name}: config.json: text_config: the language model is nested in a model of images "
            "or sound; take the text model alone (for Gemma 3 that is the 1B, or its text_config "
            "saved as a model of its own)"
        )
    _check_direction(config.model_type, fields, name)
    _check_head(fields.get("architectures") or [], name)
    architecture = _architecture(config, name)
    if not is_served(architecture):
        raise InvalidInput(
            f"{name}: config.json: architectures: vLLM does not serve {architecture}; take another "
            "family, such as Llama, Qwen, Gemma, OLMo, Phi, GPT-2 or GPT-NeoX (Pythia)"
        )


def _check_direction(kind: str, fields: dict[str, Any], name: str) -> None:
    """Refuse what reads its text at once: `transformers` has causal classes of such models too."""
    if fields.get("is_encoder_decoder") or kind in _WITH_ENCODER:
        raise InvalidInput(
            f"{name}: config.json: is_encoder_decoder: {kind} has an encoder; take a decoder alone"
        )
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise InvalidInput(
            f"{name}: config.json: model_type: {kind} is an encoder, which fills in masked words; "
            "take a causal model"
        )


def _check_head(architectures: list[str], name: str) -> None:
    """Refuse embeddings, classifiers and reward models: their head would be a random one."""
    if architectures and not any(map(predicts_next_token, architectures)):
        raise InvalidInput(
            f"{name}: config.json: architectures: {', '.join(architectures)} has no head that "
            "predicts the next token; take a causal model (its class is called ...ForCausalLM)"
        )


def predicts_next_token(architecture: str) -> bool:
    """Tell by its name whether a class has the head of a causal model."""
    return _WITH_HEAD.search(architecture) is not None


def is_served(architecture: str) -> bool:
    """Tell whether vLLM serves a causal model: by its own code, or on top of `transformers`."""
    if architecture in NATIVE_ALONE:
        return True
    model: Any = getattr(transformers, architecture, None)
    if model is None or model._is_stateful:
        return False
    # The condition of vLLM for what it has no code of its own for. All that it has some for and
    # that transformers can train fulfil it too, but for those above.
    return bool(model.is_backend_compatible() or model._can_set_attn_implementation())


def _architecture(config: PreTrainedConfig, name: str) -> str:
    found: Any = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    if found is None:
        raise InvalidInput(
            f"{name}: config.json: model_type: {config.model_type} is no causal model"
        )
    return found if isinstance(found, str) else found[0]
