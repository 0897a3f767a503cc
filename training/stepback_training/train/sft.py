"""Supervised fine-tuning on steps and markers, with `transformers.Trainer`.

A run lives in one folder: `checkpoints/` (resumable), `tensorboard/`, and at the end `model/`. What
[lora] has trained is in `adapter/`, too.
"""

import math
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, TrainerState

from stepback_core.manifest import Manifest
from stepback_core.trace import Grammar, TraceCodec
from stepback_training.config import TRACES, Recipe
from stepback_training.cores import usable_cores
from stepback_training.data.samples import read_samples, recipe_as_written, recipe_of
from stepback_training.data.traces import SPLIT_RULE
from stepback_training.generators import GENERATORS
from stepback_training.train.checkpoint import export, resumable
from stepback_training.train.distributed import FSDP, agreed, check_sharding, join, sharding
from stepback_training.train.encoded_samples import EncodedSamples
from stepback_training.train.isolation import has_tree_masks, is_blind_to_neighbours
from stepback_training.train.lora import (
    TrainedModel,
    add_adapter,
    export_adapter,
    load_adapter,
    merged,
)
from stepback_training.train.loss_mask import check_round_trip
from stepback_training.train.model import AnyTokenizer, embedding_rows, make_model
from stepback_training.train.packing import PackedRows
from stepback_training.train.reporting import check_reporters, reporters
from stepback_training.train.run_folder import held, note_start
from stepback_training.train.trained_for import trained_for
from stepback_training.train.trainer import (
    StepbackTrainer,
    arguments_of,
    collator_of,
    seconds_of,
)


def train(recipe: Recipe, data: Path, run: Path) -> Path:
    """Train, or go on with, one run; returns the finished checkpoint folder.

    Under `accelerate launch` every process calls it. The main one holds the run and writes to it.
    What flags of `stepback data` changed for these samples is taken from them.

    Raises InvalidInput for a bad data file, and ValueError for a recipe that does not fit the data,
    the launch, or the run that is to go on.
    """
    recipe.train.check_processes(join().num_processes)
    check_sharding(recipe)
    check_reporters(recipe)
    written = agreed(lambda: recipe_as_written(data, recipe.data))
    recipe = recipe.model_copy(update={"data": written})
    with ExitStack() as holding:
        digest = agreed(lambda: holding.enter_context(held(run, recipe, data)))
        folder = _train(recipe, data, digest, run)
        # Nobody leaves before the export is there.
        join().wait_for_everyone()
        return folder


@dataclass(frozen=True, slots=True)
class _Material:
    """Model and data of a run. Every process makes the same."""

    model: TrainedModel
    tokenizer: AnyTokenizer
    codec: TraceCodec
    samples: EncodedSamples
    rows: PackedRows
    vocabulary_size: int
    parameters: int
    """Parameters of the whole model; adapters vanish into it in the end."""
    trained_parameters: int


def _train(recipe: Recipe, data: Path, digest: str, run: Path) -> Path:
    material = _prepare(recipe, data)
    last = agreed(lambda: _start(run))
    trainer = _trainer(recipe, run, material, last)
    # Nothing refuses the recipe from here on.
    agreed(lambda: note_start(run, recipe, digest))
    if _step(last) < trainer.args.max_steps:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    else:
        # It had ended, and was killed before its export. Going on would make a step too many.
        _restore_finished(trainer, str(last))
    folder = run / "model"
    if trainer.is_world_process_zero():
        facts = {"samples_sha256": digest} | _facts(recipe, trainer, material)
        manifest = _manifest(recipe, data, material, facts)
        if recipe.lora:
            export_adapter(run / "adapter", resumable(run / "checkpoints")[-1], manifest)
        model = _in_one_piece(trainer, recipe, data, run, manifest.marker_id)
        export(folder, model, material.tokenizer, manifest)
    return folder


def _prepare(recipe: Recipe, data: Path) -> _Material:
    model, tokenizer, grammar = _untrained(recipe, data)
    codec = TraceCodec.of(grammar, tokenizer)
    check_round_trip(read_samples(data), codec)
    samples = EncodedSamples.read(data, codec, recipe.data.names, processes=_free_cores())
    fit, pad = recipe.train, tokenizer.pad_token_id
    is_blind = recipe.base is None or is_blind_to_neighbours(model)
    if fit.shares and not (is_blind and has_tree_masks(model)):
        raise ValueError(f"train.{fit.shares}: this model would see other samples; leave it out")
    rows = PackedRows(
        samples,
        fit.row_tokens,
        pad,
        recipe.seed,
        shuffle=fit.shuffle,
        multiple=fit.rows_per_step,
        together=is_blind,
        share_prompts=fit.share_prompts,
        share_beginnings=fit.share_beginnings,
    )
    vocabulary_size, parameters = embedding_rows(model), model.num_parameters()
    if recipe.lora:
        model = add_adapter(model, recipe.lora, codec.tokens.marker_id)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return _Material(model, tokenizer, codec, samples, rows, vocabulary_size, parameters, trained)


def _untrained(recipe: Recipe, data: Path) -> tuple[PreTrainedModel, AnyTokenizer, Grammar]:
    return make_model(recipe, _characters(data) if recipe.scratch else "")


def _free_cores() -> int:
    return usable_cores(shared_by=int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _start(run: Path) -> Path | None:
    """The checkpoint that the run goes on from; what a killed one left half written is dropped."""
    folder = run / "checkpoints"
    shutil.rmtree(folder / "partial", ignore_errors=True)
    return next(reversed(resumable(folder)), None)


def _trainer(recipe: Recipe, run: Path, material: _Material, last: Path | None) -> StepbackTrainer:
    processes = join()
    arguments = arguments_of(recipe, run, material.rows, processes.num_processes)
    is_main = processes.is_main_process
    return StepbackTrainer(
        recipe=recipe.train,
        marker_id=material.codec.tokens.marker_id,
        seconds_before=seconds_of(last),
        model=material.model,
        args=arguments,
        train_dataset=material.rows,
        data_collator=collator_of(recipe.train, material.model),
        callbacks=reporters(recipe, run, _step(last)) if is_main else [],
    )


def _in_one_piece(
    trainer: StepbackTrainer, recipe: Recipe, data: Path, run: Path, marker_id: int
) -> PreTrainedModel:
    """The trained model, with its adapters merged into it."""
    if sharding() != FSDP:
        return merged(trainer.accelerator.unwrap_model(trainer.model))
    # Each process has a piece of it; the last checkpoint has it whole.
    checkpoint = resumable(run / "checkpoints")[-1]
    if not recipe.lora:
        return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    model, _, _ = _untrained(recipe, data)
    model = add_adapter(model, recipe.lora, marker_id)
    load_adapter(model, checkpoint)
    return merged(model)


def _manifest(recipe: Recipe, data: Path, material: _Material, facts: dict[str, Any]) -> Manifest:
    codec = material.codec
    # Room for wrong answers that are longer than any right one.
    room = {task: longest * 3 // 2 for task, longest in material.samples.longest_answers.items()}
    return Manifest(
        name=recipe.name,
        grammar=codec.grammar,
        marker_id=codec.tokens.marker_id,
        end_id=codec.tokens.end_id,
        separator_ids=codec.encode_step(""),
        vocabulary_size=material.vocabulary_size,
        answer_tokens=max(room.values(), default=None),
        task_answer_tokens={task: room[task] for task in room if task} if len(room) > 1 else {},
        tasks=recipe.data.names,
        trained_for=trained_for(recipe) if recipe_of(data) else {},
        base_model=recipe.base.path if recipe.base else None,
        recipe=recipe.model_dump(mode="json"),
        split=_split(recipe, data),
        training=facts,
    )


def _facts(recipe: Recipe, trainer: StepbackTrainer, material: _Material) -> dict[str, Any]:
    """Return the facts of training and its measurements, for the manifest."""
    samples, rows, fit = material.samples, material.rows, recipe.train
    epochs = fit.epochs_over(rows.tokens)
    return {
        "samples": len(samples),
        "epochs": round(epochs, 4),
        "tokens": round(rows.tokens * epochs),
        "parameters": material.parameters,
        "trained_parameters": material.trained_parameters,
        "attention": material.model.config._attn_implementation,
        "samples_per_step": round(len(samples) / rows.filled * fit.rows_per_step, 1),
        "optimizer_steps": trainer.state.global_step,
        "final_loss": _final_loss(trainer.state.log_history),
        "hours": round(trainer.hours, 2),
        "processes": join().num_processes,
    } | _machine()


def _machine() -> dict[str, Any]:
    """Return the device of this process, and its peak GPU memory."""
    if not torch.cuda.is_available():
        return {"device": "cpu", "threads": torch.get_num_threads()}
    peak = torch.cuda.max_memory_allocated() / 2**30
    return {"device": torch.cuda.get_device_name(), "peak_gpu_memory_gib": round(peak, 2)}


def _split(recipe: Recipe, data: Path) -> str:
    if recipe_of(data) is None:
        return "unknown: the samples are from elsewhere"
    rules = {name: GENERATORS[name].split_rule for name in recipe.data.names}
    if any(source.files for source in recipe.data.tasks):
        rules[TRACES] = SPLIT_RULE
    if len(rules) == 1:
        return next(iter(rules.values()))
    return "; ".join(f"{name}: {rule}" for name, rule in rules.items())


def _characters(data: Path) -> set[str]:
    """Every character of the samples; maybe some that JSON puts around them, ASCII all of them."""
    text = data.read_text(encoding="utf-8-sig")
    if "\\" not in text:  # So nothing is escaped, and no line needs to be parsed.
        return set(text) - {"\t", "\r"}  # Between the fields: inside of them these are escaped.
    found = set[str]()
    for sample in read_samples(data):
        found.update(sample.prompt, *sample.steps, *sample.wrong_steps)
    return found


def _step(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def _restore_finished(trainer: StepbackTrainer, checkpoint: str) -> None:
    """Load a finished run's weights and history into a trainer that is not to train."""
    if sharding() != FSDP:  # Else the export reads them from there.
        trainer._load_from_checkpoint(checkpoint)  # pyright: ignore[reportPrivateUsage]
    trainer.state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))


def _final_loss(history: list[dict[str, float]]) -> float:
    """Mean loss a token over the last twentieth of the run."""
    losses = [entry["loss"] for entry in history if "loss" in entry]
    tail = losses[-max(1, len(losses) // 20) :]
    return round(fmean(tail), 4) if tail else math.nan
