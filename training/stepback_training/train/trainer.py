"""The `transformers` Trainer as a run here uses it, and its arguments.

It takes rows in their packed order, keeps whole checkpoints only, and is the same in one process
and in several: a step is the same rows, and only the main process puts a checkpoint in its place.
"""

import logging
import math
import shutil
import time
from collections.abc import Sized
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import Sampler, SequentialSampler
from transformers import Trainer, TrainingArguments

from stepback_training.config import Recipe, TrainRecipe
from stepback_training.train.checkpoint import resumable, sync, told_of_full_disks
from stepback_training.train.isolation import takes_added_masks
from stepback_training.train.lora import TrainedModel
from stepback_training.train.marker_loss import MarkerWeightedLoss
from stepback_training.train.muon import MuonWithAdamW
from stepback_training.train.packing import PackedRows
from stepback_training.train.precision import has_fast_bfloat16
from stepback_training.train.shared_prompts import Collator

_log = logging.getLogger(__name__)
_KEPT = 2
# In each resumable checkpoint: how long training had taken.
_SECONDS = "seconds.txt"


class StepbackTrainer(Trainer):
    """The Trainer, with rows in their packed order, whole checkpoints only, and Muon by option."""

    def __init__(
        self, *, recipe: TrainRecipe, marker_id: int, seconds_before: float, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._seconds_before = seconds_before
        self._started = time.monotonic()
        self._recipe = recipe
        self._staging: Path | None = None
        self._first_bad_step: torch.Tensor | None = None
        self._kept: torch.Tensor | None = None
        if recipe.head == "loss":
            self._compute_the_head_on_losses()
        if recipe.marker_weight != 1:
            self._weigh_the_marker(marker_id)

    def _compute_the_head_on_losses(self) -> None:
        if not self.model_accepts_loss_kwargs:
            raise ValueError('train.head: this model computes its loss in its own way; take "all"')
        head = cast("nn.Module", self.accelerator.unwrap_model(self.model).get_output_embeddings())
        head.register_forward_pre_hook(lambda _, hidden: (self._with_loss(hidden[0]),))

    def _weigh_the_marker(self, marker_id: int) -> None:
        if not self.model_accepts_loss_kwargs:
            raise ValueError(
                "train.marker_weight: this model computes its loss in its own way; leave it out"
            )
        model: Any = self.accelerator.unwrap_model(self.model)
        # An adapter wraps the model whose loss it is.
        model = getattr(model, "get_base_model", lambda: model)()
        model.loss_function = MarkerWeightedLoss(marker_id, self._recipe.marker_weight)

    def _with_loss(self, hidden: torch.Tensor) -> torch.Tensor:
        """The states that a loss is on, as one row."""
        return hidden if self._kept is None else hidden.flatten(0, 1)[self._kept][None]

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self._kept = inputs.pop("kept", None)
        if self._kept is not None:
            inputs["labels"] = inputs["shift_labels"]
        try:
            return super().compute_loss(model, inputs, *args, **kwargs)
        finally:
            self._kept = None

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

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Run one pass, and note the first step whose loss is no number."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        step = torch.full_like(loss, self.state.global_step + 1)
        found = torch.where(loss.isfinite(), torch.full_like(loss, math.inf), step)
        before = self._first_bad_step
        self._first_bad_step = found if before is None else torch.minimum(before, found)
        if loss.device.type == "cpu":  # A GPU would wait for each look; it is looked at in logs.
            self._refuse_no_number()
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self._refuse_no_number()
        super().log(logs, start_time)

    def _refuse_no_number(self) -> None:
        """Raise FloatingPointError where a loss was no number; the message names the step."""
        first = math.inf if self._first_bad_step is None else float(self._first_bad_step)
        if math.isfinite(first):
            raise self._no_number(f"the loss is no number at step {first:.0f}")

    def _refuse_bad_weights(self, model: nn.Module) -> None:
        """Raise FloatingPointError for weights that are no numbers: a gradient that overflows
        spoils them at a step whose loss was still good."""
        for name, weights in model.named_parameters():
            # Of a sharded matrix each process looks at its own piece.
            piece = weights.to_local() if isinstance(weights, DTensor) else weights
            if not piece.isfinite().all():
                step = self.state.global_step
                raise self._no_number(f"the weights of {name} are no numbers after step {step}")

    def _no_number(self, what: str) -> FloatingPointError:
        kept = resumable(Path(str(self.args.output_dir)))
        where = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
        return FloatingPointError(
            f"{what}, and {where}. Lower train.learning_rate in the recipe, and start it with "
            "another --out"
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        # The rows are packed from samples in random order already. Of several processes each takes
        # every n-th pass, so a step holds the same rows however many there are.
        return SequentialSampler(cast("Sized", train_dataset or self.train_dataset))

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save next to the others, then rename: a kill never leaves half a checkpoint."""
        self._refuse_no_number()
        self._refuse_bad_weights(model)
        folder = Path(str(self.args.output_dir))
        self._staging = folder / "partial"
        try:
            with told_of_full_disks(folder, self._staging):
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


def collator_of(fit: TrainRecipe, model: TrainedModel) -> Collator | None:
    """Collator of a batch of rows; None for that of `transformers`."""
    if not fit.shares and fit.head == "all":
        return None
    return Collator(
        tree=fit.shares is not None,
        additive=takes_added_masks(model),
        head_on_loss=fit.head == "loss",
    )


def seconds_of(checkpoint: Path | None) -> float:
    """Tell how long training had taken at a resumable checkpoint."""
    record = checkpoint / _SECONDS if checkpoint else None
    return float(record.read_text()) if record and record.exists() else 0.0


def arguments_of(recipe: Recipe, run: Path, rows: PackedRows, processes: int) -> TrainingArguments:
    """The Trainer's arguments for a run over these rows. Raises ValueError where the processes
    cannot share a step."""
    fit, on_gpu = recipe.train, torch.cuda.is_available()
    steps = math.ceil(rows.filled * fit.epochs_over(rows.tokens) / fit.rows_per_step)
    if steps < 2 * fit.warmup_steps:
        _log.warning(
            "the learning rate rises over %d of %d steps, so little is learned: lower "
            "train.warmup_steps, or give more samples or epochs",
            min(steps, fit.warmup_steps),
            steps,
        )
    rows_per_pass, passes = fit.passes(processes, on_gpu=on_gpu)
    arguments = TrainingArguments(
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
        # Short runs have something to go on from, too.
        save_steps=fit.checkpoint_every or min(250, max(1, steps // 4)),
        # Short runs tell their loss too.
        logging_steps=min(20, max(1, steps // 20)),
        report_to="none",
        # Looking for a NaN each step would make a GPU wait for the CPU, each step.
        logging_nan_inf_filter=False,
        # Rows are made in parallel to the training, so that a GPU does not wait for them.
        dataloader_num_workers=2 if on_gpu else 0,
        dataloader_pin_memory=on_gpu,
        accelerator_config={"non_blocking": on_gpu},
        remove_unused_columns=False,
    )
    use_one_gpu(arguments)
    return arguments


def use_one_gpu(arguments: TrainingArguments) -> None:
    """Keep a plain start to one GPU: on several the Trainer would multiply the batch, silently."""
    seen = arguments.n_gpu
    if seen > 1:
        arguments._n_gpu = 1  # pyright: ignore[reportPrivateUsage]
        _log.warning(
            "%d GPUs are in sight, and this process trains on the first: accelerate launch takes "
            "them all, at the recipe's batch",
            seen,
        )


def _schedule_options(fit: TrainRecipe, steps: int) -> dict[str, Any]:
    if fit.schedule != "wsd":
        return {}
    return {"num_decay_steps": math.ceil(steps * fit.decay), "decay_type": "linear"}


def _in_bf16(fit: TrainRecipe) -> bool:
    if fit.precision != "auto":
        return fit.precision == "bf16"
    return has_fast_bfloat16(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
