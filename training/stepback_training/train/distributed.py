"""Processes of one run, as `accelerate launch` starts them; a plain start is one of one.

Every process reads the samples and makes the model. Only the main one writes: the run's folder, its
lock, the loss curve and the export are its own.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from stepback_training.config import Recipe

T = TypeVar("T")

FSDP = "FSDP"
# Variables of `accelerate launch`, and the sharding that each stands for.
_SHARDING = {"ACCELERATE_USE_FSDP": FSDP, "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}


def join() -> PartialState:
    """Join the other processes; returns once all of them are there."""
    return PartialState(cpu=not torch.cuda.is_available())


def sharding() -> str | None:
    """Sharding of the optimizer's state in this launch."""
    used = (name for name in _SHARDING if os.environ.get(name, "").lower() == "true")
    return next((_SHARDING[name] for name in used), None)


def check_sharding(recipe: Recipe) -> None:
    """Raise ValueError where what a recipe asks for does not go with how this launch shards."""
    kind = sharding()
    if kind and recipe.train.optimizer == "muon":
        raise ValueError(
            f"train.optimizer: muon needs whole matrices, and {kind} cuts them up; take adamw, or "
            "launch plain data-parallel processes"
        )
    if kind == FSDP and os.environ.get("FSDP_STATE_DICT_TYPE") != "FULL_STATE_DICT":
        raise ValueError(
            "the launch: fsdp_state_dict_type must be FULL_STATE_DICT, since the export reads the "
            "whole model out of a checkpoint"
        )


def agreed(decide: Callable[[], T]) -> T:
    """Share the main process's decision with every process. A ValueError or OSError of it is
    raised in every process too, so that none waits for the others. Every process must call it."""
    outcome: list[Any] = [None, None]
    if is_main():
        try:
            outcome[0] = decide()
        except (ValueError, OSError) as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def is_main() -> bool:
    """Tell whether this process is the one that writes and speaks."""
    return os.environ.get("RANK", "0") == "0"
