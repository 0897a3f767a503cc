"""The `transformers` Trainer as a run here uses it, and its arguments.

It takes rows in their packed order, keeps whole checkpoints only, and is the same in one process
and in several: a step is the same rows, and only the main process puts a checkpoint in its place.
"""

import math
import shutil
import time
from collections.abc import Sized
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import Sampler, SequentialSampler
from transformers import Trainer, TrainingArguments

from stepback_training.config import Recipe, TrainRecipe
from stepback_training.train.checkpoint import resumable, sync
from stepback_training.train.muon import MuonWithAdamW
from stepback_training.train.packing import PackedRows

_KEPT = 2
_SECONDS = "seconds.txt"
"""In each resumable checkpoint: how long training had taken."""


class StepbackTrainer(Trainer):
    """The Trainer, with rows in their packed order, whole checkpoints only, and Muon by option."""

    def __init__(self, *, recipe: TrainRecipe, seconds_before: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._seconds_before = seconds_before
        self._started = time.monotonic()
        self._recipe = recipe
        self._staging: Path | None = None

    @property
    def hours(self) -> float:
        """Hours of training, those before the last resume included."""
        return (self._seconds_before + time.monotonic() - self._started) / 3600

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self._recipe.optimizer == "muon" and self.optimizer is None:
            self.optimizer = MuonWithAdamW(
                cast("nn.Module", model or self.model),
                lr=self._recipe.learning_rate,
                adamw_lr=self._recipe.adamw_learning_rate or self._recipe.learning_rate,
                weight_decay=self._recipe.weight_decay,
            )
        return super().create_optimizer(model)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        # The rows are packed from samples in random order already. Of several processes each takes
        # every n-th pass, so a step holds the same rows however many there are.
        return SequentialSampler(cast("Sized", train_dataset or self.train_dataset))

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save beside the others, then rename: a kill never leaves half a checkpoint."""
        folder = Path(str(self.args.output_dir))
        self._staging = folder / "partial"
        try:
            super()._save_checkpoint(model, trial)
        finally:
            staging, self._staging = self._staging, None
        # Each process has written its own part; the checkpoint is whole when all of them have.
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            for saved in staging.iterdir():
                (saved / _SECONDS).write_text(str(self.hours * 3600))
                sync(saved)
                replaced = folder / saved.name
                shutil.rmtree(replaced, ignore_errors=True)
                saved.replace(replaced)
            for stale in resumable(folder)[:-_KEPT]:
                shutil.rmtree(stale)
        self.accelerator.wait_for_everyone()


def seconds_of(checkpoint: Path | None) -> float:
    """How long training had taken at a resumable checkpoint."""
    record = checkpoint / _SECONDS if checkpoint else None
    return float(record.read_text()) if record and record.exists() else 0.0


def arguments_of(recipe: Recipe, run: Path, rows: PackedRows, processes: int) -> TrainingArguments:
    """The Trainer's arguments for a run over these rows. Raises ValueError where the processes
    cannot share a step."""
    fit, on_gpu = recipe.train, torch.cuda.is_available()
    steps = math.ceil(rows.filled * fit.epochs_over(rows.tokens) / fit.rows_per_step)
    rows_per_pass, passes = fit.passes(processes, on_gpu=on_gpu)
    return TrainingArguments(
        output_dir=str(run / "checkpoints"),
        seed=recipe.seed,
        max_steps=steps,
        per_device_train_batch_size=rows_per_pass,
        gradient_accumulation_steps=passes,
        learning_rate=fit.learning_rate,
        adam_beta2=0.95,
        weight_decay=fit.weight_decay,
        warmup_steps=fit.warmup_steps,
        lr_scheduler_type="warmup_stable_decay" if fit.schedule == "wsd" else fit.schedule,
        lr_scheduler_kwargs=_schedule_options(fit, steps),
        use_cpu=not on_gpu,
        bf16=_in_bf16(fit),
        gradient_checkpointing=fit.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        torch_compile=fit.compile,
        save_strategy="steps",
        save_steps=fit.checkpoint_every,
        # Short runs tell their loss too.
        logging_steps=min(20, max(1, steps // 20)),
        report_to="none",
        # Looking for a NaN each step would make a GPU wait for the CPU, each step.
        logging_nan_inf_filter=False,
        # Rows are made beside the training, so that a GPU does not wait for them.
        dataloader_num_workers=2 if on_gpu else 0,
        dataloader_pin_memory=on_gpu,
        accelerator_config={"non_blocking": on_gpu},
        remove_unused_columns=False,
    )


def _schedule_options(fit: TrainRecipe, steps: int) -> dict[str, Any]:
    if fit.schedule != "wsd":
        return {}
    return {"num_decay_steps": math.ceil(steps * fit.decay), "decay_type": "linear"}


def _in_bf16(fit: TrainRecipe) -> bool:
    return _has_bf16() if fit.precision == "auto" else fit.precision == "bf16"


def _has_bf16() -> bool:
    """Whether bfloat16 is fast here: on a GPU that has it, or a CPU with the instructions."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported())  # pyright: ignore[reportPrivateUsage]
