"""Failures that a training meets elsewhere: a loss that is no number, a full disk, no locks on
files."""

import errno
import fcntl
import math
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors import SafetensorError
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from stepback_client.batch import growing
from stepback_core import cores as core_cores
from stepback_core.trace import Grammar, TraceCodec
from stepback_training import cli, cores
from stepback_training.config import DataRecipe, Recipe
from stepback_training.data.samples import Sample, write_samples
from stepback_training.train.checkpoint import resumable, sync, told_of_full_disks
from stepback_training.train.encoded_samples import EncodedSamples
from stepback_training.train.packing import PackedRows
from stepback_training.train.run_folder import locked
from stepback_training.train.tokenizer import make_tokenizer
from stepback_training.train.trainer import StepbackTrainer, arguments_of, use_one_gpu
from tests.conftest import ROOT

COUNTDOWN = ROOT / "training/recipes/countdown.toml"


def tiny_trainer(folder: Path, checkpoint_every: int | None = 1) -> StepbackTrainer:
    """A training of a few steps, each of which is kept."""
    tokenizer: Any = make_tokenizer(Grammar(), tasks=[], digits_per_token=1)
    samples = EncodedSamples.of(
        [Sample(prompt="1+1", steps=["2"])] * 40, TraceCodec.of(Grammar(), tokenizer)
    )
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "data": {"samples": 1},
            "scratch": {},
            "train": {
                "learning_rate": 1e-3,
                "batch_tokens": 32,
                "row_tokens": 32,
                "checkpoint_every": checkpoint_every,
                "epochs": 3,
            },
        }
    )
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    model: Any = LlamaForCausalLM(shape)
    rows = PackedRows(samples, 32, tokenizer.pad_token_id, 0)
    arguments = arguments_of(recipe, folder, rows, 1)
    arguments.disable_tqdm = True
    return StepbackTrainer(
        recipe=recipe.train,
        marker_id=0,
        seconds_before=0.0,
        model=model,
        args=arguments,
        train_dataset=rows,
    )


def test_a_short_training_has_checkpoints_to_go_on_from(tmp_path: Path) -> None:
    arguments = tiny_trainer(tmp_path, checkpoint_every=None).args
    assert 8 < arguments.max_steps < 250
    assert arguments.save_steps == arguments.max_steps // 4


def test_a_loss_that_is_no_number_ends_the_training_and_keeps_the_last_good_checkpoint(
    tmp_path: Path,
) -> None:
    trainer = tiny_trainer(tmp_path)
    model: Any = trainer.model
    forward, passes = model.forward, 0

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal passes
        passes += 1
        outputs = forward(*args, **kwargs)
        return outputs if passes < 4 else type(outputs)(loss=outputs.loss * float("inf"))

    model.forward = failing
    with pytest.raises(
        FloatingPointError, match=r"no number at step 4, and the last good checkpoint is .*-3"
    ):
        trainer.train()
    assert_last_is_good(trainer, "checkpoint-3")


def test_a_rate_that_rises_over_most_of_a_run_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    steps = tiny_trainer(tmp_path).args.max_steps
    assert f"rises over {min(50, steps)} of {steps} steps" in caplog.text


def test_weights_that_are_no_numbers_are_never_kept_though_their_loss_was_good(
    tmp_path: Path,
) -> None:
    trainer = tiny_trainer(tmp_path)
    head = cast("torch.nn.Module", trainer.model).get_parameter("lm_head.weight")
    head.register_hook(
        lambda gradient: gradient * math.nan if trainer.state.global_step == 2 else gradient
    )
    with pytest.raises(FloatingPointError, match=r"after step 3, and the last good .*-2"):
        trainer.train()
    assert_last_is_good(trainer, "checkpoint-2")


def assert_last_is_good(trainer: StepbackTrainer, name: str) -> None:
    last = resumable(Path(str(trainer.args.output_dir)))[-1]
    assert last.name == name
    weights = LlamaForCausalLM.from_pretrained(last).state_dict()
    assert all(tensor.isfinite().all() for tensor in weights.values())


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "partial/tokenizer.json"),
    ],
)
def test_a_full_disk_is_an_os_error_with_its_path(tmp_path: Path, error: Exception) -> None:
    (half := tmp_path / "partial").mkdir()
    full = told_of_full_disks(tmp_path, half)
    with pytest.raises(OSError, match="No space left") as caught, full:
        raise error
    assert caught.value.filename == str(tmp_path)
    assert not half.exists()
    with pytest.raises(RuntimeError, match="something else"), told_of_full_disks(tmp_path, half):
        raise RuntimeError("something else")


def data_onto(path: str) -> int:
    flags = ["--recipe", str(COUNTDOWN), "--samples", "20000", "--processes", "1"]
    return cli.data([*flags, "--out", path])


def test_samples_onto_a_full_disk_or_into_no_folder_are_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert data_onto("/proc/nowhere/samples.jsonl") == 2
    assert "/proc/nowhere" in capsys.readouterr().err.splitlines()[-1]

    def full(*_: object) -> None:
        (tmp_path / "samples.jsonl.partial").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("stepback_training.data.samples._write_batches", full)
    assert data_onto(str(tmp_path / "samples.jsonl")) == 2
    line = capsys.readouterr().err
    assert line == f"stepback data: {tmp_path}/samples.jsonl: No space left on device\n"
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_synced_are_passed_over_and_files_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").write_text("w")
    synced: list[bool] = []

    def refuse_folders(descriptor: int) -> None:
        synced.append(is_folder := stat.S_ISDIR(os.fstat(descriptor).st_mode))
        if is_folder:
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse_folders)
    sync(tmp_path)
    assert sorted(synced) == [False, True]

    def refuse(_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Invalid argument"):
        sync(tmp_path)


def test_a_plain_start_takes_one_gpu_and_the_recipes_batch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=4
    )
    assert arguments.n_gpu <= 1
    arguments._n_gpu = 3  # What transformers finds where three are in sight.
    assert arguments.train_batch_size == 12
    use_one_gpu(arguments)
    assert arguments.train_batch_size == 4
    assert "3 GPUs are in sight" in caplog.text


def test_as_many_processes_as_this_one_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_cores, "_CGROUP", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert cores.usable_cores() == 6
    assert cores.usable_cores(shared_by=4) == 1
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    assert cores.usable_cores() == 2
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cores.usable_cores() == 6
    (tmp_path / "cpu.max").unlink()  # As on a host with the first version of cgroups.
    monkeypatch.setattr(core_cores, "_CGROUP_1", tmp_path)
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    for quota, processes in (("300000", 3), ("50000", 1), ("-1", 6)):
        (tmp_path / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        assert cores.usable_cores() == processes
    monkeypatch.delattr(os, "sched_getaffinity")  # As on macOS.
    assert cores.usable_cores() == 16


def test_a_run_in_a_folder_whose_system_has_no_locks_is_held_by_none_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "run"), growing(tmp_path / "answers.jsonl") as answers:
        answers.append({"a": 1})
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert all("no lock can be had there" in record.message for record in caplog.records)


def test_where_there_are_no_locks_data_is_written_and_training_says_what_it_needs(
    tmp_path: Path,
) -> None:
    write_samples(DataRecipe(samples=10), tmp_path / "samples.jsonl", processes=1)
    script = (
        "import sys; sys.modules['fcntl'] = None\n"
        "from stepback_training import cli\n"
        "sys.exit(cli.train(['--recipe', 'r.toml', '--data', 's.jsonl', '--out', 'run']))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=500, check=False
    )
    assert run.returncode == 2
    assert run.stderr.startswith("stepback train: training needs Linux")
