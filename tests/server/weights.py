"""Other weights of the bundled model, and what tells by which weights a controller answers."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stepback_client import Client
from tests.conftest import CHECKPOINT

PROMPT = "countdown:4,14,41,76=12"
"""Without a solution, so that the model is unsure: where it is sure, slightly other weights give
the same score."""


def other_weights(folder: Path) -> Path:
    """A copy of the bundled checkpoint whose weights are a little off, and so its answers."""
    shutil.copytree(CHECKPOINT, folder)
    torch.manual_seed(1)
    [file] = folder.glob("*.safetensors")
    noisy = {
        name: weight + 0.1 * weight.std() * torch.randn_like(weight)
        for name, weight in load_file(file).items()
    }
    save_file(noisy, file, metadata={"format": "pt"})
    return folder


def greedy(url: str) -> tuple[list[str], object]:
    """The steps of a greedy search, and their score to what rounding leaves of it."""
    with Client(url) as client:
        result = client.solve(prompt=PROMPT, strategy="greedy", tree=True)
    assert result.tree is not None and result.tree[1].score is not None
    return result.tree[1].steps, pytest.approx(result.tree[1].score, abs=1e-5)
