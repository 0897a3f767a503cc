"""Supervised fine-tuning on steps and markers, with `transformers.Trainer`.

A run lives in one folder: `checkpoints/` (resumable), `tensorboard/`, and at the end `model/`.
"""

import math
import shutil
import time
from collections.abc import Sized
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import Sampler, SequentialSampler
from torch.utils.tensorboard import SummaryWriter
from transformers import Trainer, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback

from stepback_core.manifest import Manifest
from stepback_core.tasks import TASKS
from stepback_core.trace import TraceCodec
from stepback_training.checkpoint import export, resumable, sync
from stepback_training.encode import EncodedSamples, PackedRows, check_round_trip
from stepback_training.model import embedding_rows, make_model
from stepback_training.optimizer import MuonWithAdamW
from stepback_training.recipe import TRACES, Recipe, TrainRecipe
from stepback_training.run import held
from stepback_training.samples import read_samples, recipe_of
from stepback_training.traces import SPLIT_RULE

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
        # The rows are packed from samples in random order already.
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
        if self.args.should_save:
            for saved in staging.iterdir():
                (saved / _SECONDS).write_text(str(self.hours * 3600))
                sync(saved)
                replaced = folder / saved.name
                shutil.rmtree(replaced, ignore_errors=True)
                saved.replace(replaced)
            for stale in resumable(folder)[:-_KEPT]:
                shutil.rmtree(stale)


def train(recipe: Recipe, data: Path, run: Path) -> Path:
    """Train, or go on with, one run; returns the finished checkpoint folder.

    Raises SampleError for a bad data file, and ValueError for a recipe that does not fit the data
    or the run that is to go on.
    """
    with held(run, recipe, data) as digest:
        return _train(recipe, data, digest, run)


def _train(recipe: Recipe, data: Path, digest: str, run: Path) -> Path:
    model, tokenizer, grammar = make_model(recipe, _characters(data) if recipe.scratch else "")
    codec = TraceCodec.of(grammar, tokenizer)
    check_round_trip(next(read_samples(data), None), codec)
    samples = EncodedSamples(read_samples(data), codec)
    rows = PackedRows(samples, recipe.train.row_tokens, tokenizer.pad_token_id, recipe.seed)
    last = next(reversed(resumable(run / "checkpoints")), None)
    trainer = StepbackTrainer(
        recipe=recipe.train,
        seconds_before=_seconds(last),
        model=model,
        args=_arguments(recipe, run, len(rows)),
        train_dataset=rows,
        callbacks=[TensorBoardCallback(_loss_curve(run, last))],
    )
    if _step(last) < trainer.args.max_steps:
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    else:
        # It had ended, and was killed before its export. Going on would make a step too many.
        _restore_finished(trainer, str(last))
    manifest = Manifest(
        name=recipe.name,
        grammar=grammar,
        marker_id=codec.tokens.marker_id,
        end_id=codec.tokens.end_id,
        separator_ids=codec.encode_step(""),
        vocabulary_size=embedding_rows(model),
        # Room for wrong answers that are longer than any right one.
        answer_tokens=samples.longest_answer * 3 // 2,
        tasks=recipe.data.names,
        base_model=recipe.base.path if recipe.base else None,
        recipe=recipe.model_dump(mode="json"),
        split=_split(recipe, data),
        training={
            "samples": len(samples),
            "samples_sha256": digest,
            "epochs": recipe.train.epochs,
            "tokens": round(int(samples.lengths.sum()) * recipe.train.epochs),
            "parameters": sum(p.numel() for p in model.parameters()),
            "optimizer_steps": trainer.state.global_step,
            "final_loss": _final_loss(trainer.state.log_history),
            "hours": round(trainer.hours, 2),
            "threads": torch.get_num_threads(),
        },
    )
    folder = run / "model"
    export(folder, trainer.accelerator.unwrap_model(trainer.model), tokenizer, manifest)
    return folder


def _split(recipe: Recipe, data: Path) -> str:
    if recipe_of(data) is None:
        return "unknown: the samples are from elsewhere"
    rules = {name: TASKS[name].split_rule for name in recipe.data.names}
    if any(source.files for source in recipe.data.tasks):
        rules[TRACES] = SPLIT_RULE
    if len(rules) == 1:
        return next(iter(rules.values()))
    return "; ".join(f"{name}: {rule}" for name, rule in rules.items())


def _characters(data: Path) -> set[str]:
    """Every character of the samples."""
    found = set[str]()
    for sample in read_samples(data):
        found.update(sample.prompt, *sample.steps, *sample.wrong_steps)
    return found


def _loss_curve(run: Path, last: Path | None) -> SummaryWriter:
    """Goes on where the last checkpoint was; what a killed run wrote past it is dropped."""
    step = _step(last)
    return SummaryWriter(str(run / "tensorboard"), purge_step=step + 1 if step else None)


def _step(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def _restore_finished(trainer: StepbackTrainer, checkpoint: str) -> None:
    """Load a finished run's weights and history into a trainer that is not to train."""
    trainer._load_from_checkpoint(checkpoint)  # pyright: ignore[reportPrivateUsage]
    trainer.state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))


def _final_loss(history: list[dict[str, float]]) -> float:
    """Mean loss a token over the last twentieth of the run."""
    losses = [entry["loss"] for entry in history if "loss" in entry]
    tail = losses[-max(1, len(losses) // 20) :]
    return round(fmean(tail), 4) if tail else math.nan


def _arguments(recipe: Recipe, run: Path, rows: int) -> TrainingArguments:
    fit = recipe.train
    steps = math.ceil(rows * fit.epochs / fit.rows_per_step)
    shutil.rmtree(run / "checkpoints" / "partial", ignore_errors=True)
    return TrainingArguments(
        output_dir=str(run / "checkpoints"),
        seed=recipe.seed,
        max_steps=steps,
        per_device_train_batch_size=fit.rows_per_pass,
        gradient_accumulation_steps=fit.rows_per_step // fit.rows_per_pass,
        learning_rate=fit.learning_rate,
        adam_beta2=0.95,
        weight_decay=fit.weight_decay,
        warmup_steps=fit.warmup_steps,
        lr_scheduler_type="warmup_stable_decay" if fit.schedule == "wsd" else fit.schedule,
        lr_scheduler_kwargs=_schedule_options(recipe.train, steps),
        use_cpu=not torch.cuda.is_available(),
        bf16=_has_bf16(),
        torch_compile=fit.compile,
        save_strategy="steps",
        save_steps=fit.checkpoint_every,
        # Short runs tell their loss too.
        logging_steps=min(20, max(1, steps // 20)),
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
    )


def _seconds(checkpoint: Path | None) -> float:
    record = checkpoint / _SECONDS if checkpoint else None
    return float(record.read_text()) if record and record.exists() else 0.0


def _schedule_options(fit: TrainRecipe, steps: int) -> dict[str, Any]:
    if fit.schedule != "wsd":
        return {}
    return {"num_decay_steps": math.ceil(steps * fit.decay), "decay_type": "linear"}


def _has_bf16() -> bool:
    """Whether bfloat16 is fast here: on a GPU that has it, or a CPU with the instructions."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported())  # pyright: ignore[reportPrivateUsage]
