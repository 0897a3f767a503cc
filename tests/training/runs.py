"""Whole runs as a user starts them, and a small base model to start them from."""

import os
import signal
import subprocess
import time
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from stepback_training.config import DataRecipe
from stepback_training.data.samples import make_samples
from stepback_training.train.checkpoint import resumable
from tests import warm


def train_command(recipe: Path, samples: Path, run: Path) -> list[str]:
    """The words after `python -m`."""
    flags = ["--recipe", recipe, "--data", samples, "--out", run]
    return [warm.STEPBACK, "train", *map(str, flags)]


def finish(command: list[str]) -> None:
    done = warm.run(*command)
    assert done.returncode == 0, done.stderr[-3000:]


def finish_in_a_new_python(command: list[str]) -> None:
    """Run it to its end with a hash seed of its own: forks of one process share theirs."""
    assert warm.cold(*command).wait(timeout=500) == 0


def last_step(run: Path) -> int:
    found = resumable(run / "checkpoints")
    return int(found[-1].name.rpartition("-")[2]) if found else 0


def train_until(step: int, command: list[str], run: Path, number: signal.Signals) -> None:
    """Train until a checkpoint past a step is there, then send a signal."""
    process = warm.start(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while last_step(run) < step:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, number)
    finally:
        process.kill()
        process.wait()


def read_tensors(path: Path) -> dict[str, Any]:
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path)


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other


def make_base_model(folder: Path, *, tied: bool) -> None:
    """A small model of the Llama 3 kind: byte-level BPE, digits in groups of three, a BOS."""
    recipe = DataRecipe(samples=1)
    texts = [
        "\n".join([s.prompt, *s.steps, ""]) for s in islice(make_samples(recipe, Random(0)), 500)
    ]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<|begin|>", "<|eot|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|begin|>", eos_token="<|eot|>"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            tie_word_embeddings=tied,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    model.save_pretrained(folder)
