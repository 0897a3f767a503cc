"""Parameters of OpenAI and vLLM that a search cannot honour: refused, unless they change nothing.

A parameter that would be ignored is an answer that is not what the caller asked for.
"""

from collections.abc import Mapping
from typing import Any

from stepback_core.schemas.openai import SEARCH_FIELDS
from stepback_server.errors import ApiError

# Values that change nothing, by parameter; null never does.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    # Sampling: a search draws from the model's own distribution.
    "top_p": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "typical_p": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "use_beam_search": (False,),
    # Where an answer ends is the model's own decision, or `stop`'s.
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "stop_token_ids": ([],),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    # Constrained output and tools.
    "response_format": ({"type": "text"},),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    # Other kinds of input and output.
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "top_logprobs": (0,),
    "prompt_logprobs": (),
    "echo": (False,),
    "suffix": ("",),
    # The prompt is framed as the checkpoint says.
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "add_generation_prompt": (True,),
    "truncate_prompt_tokens": (),
    "documents": ([],),
    "prompt_embeds": (),
    # Other spellings of what a search has a field for.
    "max_new_tokens": (),
    "num_beams": (),
    "thinking": ({"type": "disabled"},),
    "reasoning": (),
    "thinking_token_budget": (),
    "verbosity": ("medium",),
    "extra_body": ({},),
    # Answers of another form.
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "logits_processors": ([],),
    # Nothing is stored, or goes on after the call.
    "store": (False,),
    "background": (False,),
}

# Accepted whatever they say: they ask nothing of the answer.
_HARMLESS = frozenset({"metadata", "service_tier", "parallel_tool_calls", "safety_identifier"})

_MESSAGE_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "tool_calls": ([],),
    "function_call": (),
    "tool_call_id": (),
    "audio": (),
    "refusal": (),
}
_MESSAGE_HARMLESS = frozenset({"name"})


def unsupported(param: str, message: str) -> ApiError:
    """Refuse a parameter that this server cannot honour."""
    return ApiError("unsupported_parameter", f"{param}: {message}", param=param)


def count_unknown(fields: Mapping[str, Any], elsewhere: Mapping[str, tuple[Any, ...]]) -> int:
    """Refuse what cannot be honoured, and the other route's parameters, unless they change nothing.

    Returns how many fields no list here knows."""
    known = SEARCH_FIELDS | _HARMLESS | {"best_of"}
    return _refuse(fields, {**_NEUTRAL, **elsewhere}, known, under="")


def count_unknown_of_message(fields: Mapping[str, Any], place: str) -> int:
    """Do the same for the fields of one message."""
    return _refuse(fields, _MESSAGE_NEUTRAL, _MESSAGE_HARMLESS, under=f"{place}.")


def _refuse(
    fields: Mapping[str, Any],
    neutral: Mapping[str, tuple[Any, ...]],
    known: frozenset[str],
    under: str,
) -> int:
    unknown = 0
    for name, value in fields.items():
        if name in neutral:
            if value is not None and not _changes_nothing(value, neutral[name]):
                raise unsupported(
                    under + name, "this server cannot honour it; leave it out (see /docs)"
                )
        elif name not in known:
            unknown += 1
    return unknown


def _changes_nothing(value: Any, neutral: tuple[Any, ...]) -> bool:
    # By type too: True is 1 in Python, and no top_p.
    return any(
        value == each and isinstance(value, bool) == isinstance(each, bool) for each in neutral
    )
