"""`make bench-training`: training tokens/s as ratios, packed rows against the same loop otherwise.

All sides train the same model on the same samples with the same Trainer. Packed: rows of one
length with several samples each, the head at all tokens and nothing shared. Padded: one sample a
row, and each batch as long as its longest sample, which is what a padding collator gives. Fused:
packed, with the attention of `attention = "sdpa"`; left out where that is the recipe's own. Head:
packed, with the head computed at losses alone. Shared: so, and with shared prompts. Beginnings: so,
and with all that samples begin with. All take about as many samples a step, in as many passes, but
for the last two, which take as many rows. A token counts where a sample has it, and a shared one
counts for each sample; padding does not count.

With `--branches N` the samples are not the recipe's: N of them have one prompt, of some 35
sentences, as a deduction in words has it.

The sides take turns, in processes of their own, in one run of this file. The first steps
warm up and are not counted. The ratios are of the medians; the peak memory is of the whole process.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import TrainerCallback

from stepback_core.trace import TraceCodec
from stepback_training.config import Recipe
from stepback_training.data.samples import Sample, make_samples
from stepback_training.train.encoded_samples import EncodedSamples
from stepback_training.train.loss_mask import IGNORED
from stepback_training.train.model import attention_of, make_model
from stepback_training.train.packing import PackedRows
from stepback_training.train.trainer import StepbackTrainer, arguments_of, collator_of
from tests.conftest import ROOT
from tests.progress import counted

SIDES = ("packed", "padded", "head", "shared", "beginnings", "fused")
_WARM_UP = 3
"""Steps that are not counted, where the command line does not say."""


class PaddedRows(Dataset[dict[str, torch.Tensor]]):
    """Rows of one sample each, in a seeded random order, unpadded."""

    def __init__(self, samples: EncodedSamples, seed: int) -> None:
        self._samples = samples
        self._order = np.random.default_rng(seed).permutation(len(samples))

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        start = int(self._samples.starts[self._order[index]])
        there = slice(start, start + int(self._samples.lengths[self._order[index]]))
        ids = torch.from_numpy(self._samples.ids[there].astype(np.int64))
        has_loss = torch.from_numpy(self._samples.has_loss[there])
        return {"input_ids": ids, "labels": torch.where(has_loss, ids, IGNORED)}


def pad(rows: list[dict[str, torch.Tensor]], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad to the longest of a batch, on the right: a causal model needs no mask for that."""
    fill = {"input_ids": pad_id, "labels": IGNORED}
    return {
        name: torch.nn.utils.rnn.pad_sequence(
            [row[name] for row in rows], batch_first=True, padding_value=value
        )
        for name, value in fill.items()
    }


class StepTimes(TrainerCallback):
    """Times at which the optimizer steps ended, in seconds."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.worked: list[float] = []
        """Seconds of all cores by then: what other work on the machine does not stretch."""

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends.append(time.perf_counter())
        self.worked.append(time.process_time())


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements of one process."""

    rate: float
    """Tokens of samples a second."""
    peak: float
    """MiB, resident on a CPU, allocated on a GPU."""
    fill: float
    """Share of the computed tokens that are of samples."""
    per_core_second: float
    """Tokens of samples in a second of one core's work."""


def measure(given: argparse.Namespace) -> Measured:
    """Train so many steps, as one side."""
    recipe = Recipe.read(given.recipe)
    fit = recipe.train
    fit = fit.model_copy(update=_CHANGES[given.side])
    recipe = recipe.model_copy(update={"train": fit})
    torch.manual_seed(0)
    model, tokenizer, grammar = make_model(recipe)
    rng = Random(0)
    stream = deductions(rng, given.branches) if given.branches else make_samples(recipe.data, rng)
    number = (given.steps + given.warm_up) * fit.batch_tokens // (16 if not given.branches else 40)
    codec = TraceCodec.of(grammar, tokenizer)
    samples = EncodedSamples.of(islice(stream, number), codec)
    packed = PackedRows(
        samples,
        fit.row_tokens,
        tokenizer.pad_token_id,
        0,
        share_prompts=fit.share_prompts,
        share_beginnings=fit.share_beginnings,
    )
    per_row = len(samples) / packed.filled
    rows: Dataset[dict[str, torch.Tensor]] = packed
    fill, rows_per_step = packed.fill, fit.rows_per_step
    if given.side == "padded":
        rows, rows_per_step = PaddedRows(samples, 0), round(fit.rows_per_step * per_row)
    times = StepTimes()
    with tempfile.TemporaryDirectory() as folder:
        arguments = arguments_of(recipe, Path(folder), packed, 1)
        arguments.max_steps = given.steps + given.warm_up
        passes = arguments.gradient_accumulation_steps
        arguments.per_device_train_batch_size = rows_per_step // passes
        if given.side == "padded":
            fill = padded_fill(samples, rows_per_step // passes)
        arguments.save_strategy = "no"
        arguments.disable_tqdm = True
        trainer = StepbackTrainer(
            recipe=fit,
            marker_id=codec.tokens.marker_id,
            seconds_before=0.0,
            model=model,
            args=arguments,
            train_dataset=rows,
            data_collator=Padding(tokenizer.pad_token_id)
            if given.side == "padded"
            else collator_of(fit, model),
            callbacks=[times],
        )
        trainer.train()
    seconds, worked = (each[-1] - each[given.warm_up - 1] for each in (times.ends, times.worked))
    samples_per_step = passes * arguments.per_device_train_batch_size
    samples_per_step *= 1 if given.side == "padded" else per_row
    tokens = given.steps * samples_per_step * float(samples.lengths.mean())
    return Measured(tokens / seconds, peak_memory(), fill, tokens / worked)


_PLAIN: dict[str, Any] = {"head": "all", "share_prompts": False, "share_beginnings": False}
_CHANGES: dict[str, dict[str, Any]] = {
    "packed": _PLAIN,
    "padded": _PLAIN,
    "fused": {**_PLAIN, "attention": "sdpa"},
    "head": {**_PLAIN, "head": "loss"},
    "shared": {"head": "loss", "share_prompts": True, "share_beginnings": False},
    "beginnings": {"head": "loss", "share_prompts": False, "share_beginnings": True},
}


def deductions(rng: Random, branches: int) -> Iterator[Sample]:
    """Samples of the size of a deduction in words: a path, and wrong steps after its beginnings."""
    while True:
        names = ["".join(rng.choices("bdfglmprst", k=2)) + "umpus" for _ in range(24)]
        facts = [f"Every {rng.choice(names)} is a {rng.choice(names)}." for _ in range(35)]
        prompt = " ".join([*facts, f"Is Sally a {names[0]} or a {names[1]}?"])
        path = [f"Sally is a {name}." for name in names[2:6]]
        yield Sample(prompt=prompt, steps=path)
        for number in range(branches - 1):
            wrong = f"Sally is a {names[6 + number % 18]}."
            yield Sample(prompt=prompt, steps=path[: number % 4], wrong_step=wrong)


@dataclass(frozen=True, slots=True)
class Padding:
    """The collator of the padded side."""

    pad_id: int

    def __call__(self, rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return pad(rows, self.pad_id)


def padded_fill(samples: EncodedSamples, rows_per_pass: int) -> float:
    order = np.random.default_rng(0).permutation(len(samples))
    whole = samples.lengths[order][: len(order) // rows_per_pass * rows_per_pass]
    batches = whole.reshape(-1, rows_per_pass)
    return float(batches.sum() / (batches.max(1) * rows_per_pass).sum())


def peak_memory() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=ROOT / "training/recipes/countdown.toml")
    parser.add_argument("--steps", type=int, default=12, help="optimizer steps of one turn")
    parser.add_argument("--warm-up", type=int, default=_WARM_UP, help="steps before them")
    parser.add_argument("--turns", type=int, default=3, help="of each side")
    parser.add_argument("--branches", type=int, default=0, help="samples of one prompt")
    parser.add_argument("--sides", nargs="+", choices=SIDES, help="packed is the base of ratios")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        measured = measure(given)
        given.answer.write_text(json.dumps(astuple(measured)))
        return 0
    on_gpu = torch.cuda.is_available()
    is_fused = attention_of(Recipe.read(given.recipe).train, on_gpu=on_gpu) != "eager"
    # Where packed is fused already, there is nothing to compare.
    wanted = given.sides or [side for side in SIDES if not (side == "fused" and is_fused)]
    sides: dict[str, list[Measured]] = {side: [] for side in wanted}
    turns = [side for _ in range(given.turns) for side in wanted]
    for side in counted(turns, "turns"):
        sides[side].append(in_a_process(side))
    device = torch.cuda.get_device_name() if on_gpu else "CPU"
    print(f"{given.recipe.name}, {device}, {torch.get_num_threads()} threads")
    for side, found in sides.items():
        report(side, found)
    for unit in ("rate", "per_core_second"):
        ratios(unit, {side: [getattr(one, unit) for one in found] for side, found in sides.items()})
    return 0


def ratios(unit: str, sides: dict[str, list[float]]) -> None:
    rates = {side: statistics.median(found) for side, found in sides.items()}
    packed = rates.pop("packed")
    for side, rate in rates.items():
        print(f"{unit}: packed / {side} {packed / rate:.2f}, {side} / packed {rate / packed:.2f}")


def in_a_process(side: str) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "tests.benchmarks.training", *sys.argv[1:]]
        command += ["--side", side, "--answer", str(answer)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return Measured(*json.loads(answer.read_text()))


def report(side: str, found: list[Measured]) -> None:
    rates = ", ".join(f"{one.rate:,.0f}" for one in found)
    print(
        f"{side}: {statistics.median(one.rate for one in found):,.0f} tokens/s (turns: {rates}), "
        f"peak {max(one.peak for one in found):,.0f} MiB, {found[0].fill:.0%} of what is computed"
    )


if __name__ == "__main__":
    sys.exit(main())
