"""One run in two processes, on a CPU: the losses of one process, killed, resumed, exported once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from stepback_core.manifest import Manifest
from stepback_training.config import DataRecipe, LoraRecipe, Recipe
from stepback_training.data.samples import write_samples
from stepback_training.train.checkpoint import resumable
from stepback_training.train.lora import add_adapter
from stepback_training.train.sft import train
from tests import warm
from tests.conftest import ROOT, free_port
from tests.deploy.cluster import SLURM_SCRIPT, slurm_environment
from tests.process_tree import children, descendants
from tests.training.runs import last_step, make_base_model, read_tensors, train_command

RECIPE = """
name = "tiny"
[data]
samples = 1000
[scratch]
hidden_size = 32
intermediate_size = 64
layers = 2
heads = 2
[train]
learning_rate = 1e-2
precision = "fp32"
schedule = "wsd"
warmup_steps = 5
epochs = 1.5
batch_tokens = 1024
row_tokens = 128
micro_rows = 2
checkpoint_every = 9
"""
WARM_WORKERS = os.environ | {"PYTHON_EXEC": warm.python()}
"""The environment of a launch whose workers begin warm."""
# fmt: off
LOSSES = [
    4.592, 4.160, 3.381, 2.923, 2.790, 2.641, 2.550, 2.522, 2.482, 2.442, 2.453,
    2.390, 2.297, 2.446, 2.410, 2.271, 2.278, 2.242, 2.228, 2.216, 2.168,
]
# fmt: on
"""Means of every three steps of that recipe, as they were when this was written."""


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "samples.jsonl"
    write_samples(DataRecipe(samples=1000), path, processes=1)
    return path


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def alone(recipe: Path, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run in one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    train(Recipe.read(recipe), samples, run)
    return run


def launch_command(
    recipe: Path, samples: Path, run: Path, python: str = sys.executable
) -> list[str]:
    """The same run in two processes, as docs/base-models.md launches it."""
    config = ROOT / "training/recipes/accelerate/cpu2.yaml"
    rest = train_command(recipe, samples, run)
    launch = [python, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    return [*launch, "--main_process_port", str(free_port()), "-m", *rest]


def losses(run: Path) -> list[float]:
    [*_, last] = resumable(run / "checkpoints")
    history: list[dict[str, Any]] = json.loads((last / "trainer_state.json").read_text())[
        "log_history"
    ]
    return [entry["loss"] for entry in history if "loss" in entry]


def test_a_run_gives_the_losses_that_it_always_gave(alone: Path) -> None:
    assert losses(alone) == pytest.approx(LOSSES, rel=1e-3)


@pytest.mark.timeout(900)
def test_two_processes_killed_and_resumed_are_one_process(
    alone: Path, recipe: Path, samples: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    kill_one_of_two(launch_command(recipe, samples, run), run, past=9)
    assert not (run / "model").exists(), "it ended before it was killed"
    resumed_from = last_step(run)
    with launched(launch_command(recipe, samples, run, warm.python()), WARM_WORKERS) as process:
        _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said[-3000:]
    assert last_step(run) == last_step(alone) > resumed_from >= 9
    # The checkpoints are at steps that tell their loss: a mean that began before a kill is lost.
    assert losses(run) == pytest.approx(losses(alone), rel=1e-4)
    [*_, last] = resumable(run / "checkpoints")
    assert {path.name for path in last.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}
    one, two = (read_tensors(each / "model/model.safetensors") for each in (alone, run))
    for name in one:
        # bfloat16 keeps three digits, and sums in another order differ in the last.
        assert (one[name].float() - two[name].float()).abs().max() < 2e-2, name
    facts = [Manifest.read(each / "model").training for each in (alone, run)]
    assert [fact["processes"] for fact in facts] == [1, 2]
    assert facts[0]["optimizer_steps"] == facts[1]["optimizer_steps"]
    # The main process alone draws the curve: one file a start.
    assert len(list((run / "tensorboard").glob("events*"))) == 2


@pytest.mark.timeout(900)
def test_slurms_script_trains_over_two_nodes_as_one_process_does(
    alone: Path, recipe: Path, samples: Path, tmp_path: Path
) -> None:
    """Its own launcher on each node; tests/deploy holds Kubeflow's command to the same words."""
    run = tmp_path / "run"
    config = ROOT / "training/recipes/accelerate/cpu2.yaml"
    environment = slurm_environment(
        tmp_path / "slurm",
        RECIPE=str(recipe),
        SAMPLES=str(samples),
        RUN=str(run),
        ACCELERATE_CONFIG=str(config),
        MAIN_PORT=str(free_port()),
    )
    # Its own scontrol and srun come first.
    own, _, _ = environment["PATH"].partition(os.pathsep)
    environment["PATH"] = os.pathsep.join([own, warm.search_path()])
    environment["PYTHON_EXEC"] = warm.python()
    with launched(["bash", str(SLURM_SCRIPT)], environment) as process:
        _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said[-3000:]
    assert losses(run) == pytest.approx(losses(alone), rel=1e-4)
    assert Manifest.read(run / "model").training["processes"] == 2


@contextmanager
def launched(
    command: list[str], environment: Mapping[str, str] = os.environ
) -> Iterator[subprocess.Popen[str]]:
    """A launch that leaves no process behind."""
    quiet, pipe = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, stdout=quiet, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            # A killed launcher leaves its processes behind. What begins warm is no child of theirs,
            # and gets the first of these signals from who started it.
            left = [process.pid, *descendants(process.pid)]
            for number in (signal.SIGTERM, signal.SIGKILL):
                for started in left:
                    with suppress(ProcessLookupError):
                        os.kill(started, number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(60)


def kill_one_of_two(command: list[str], run: Path, *, past: int) -> None:
    """Kill one of the processes hard once a checkpoint is there; the launcher ends the other."""
    with launched(command) as process:
        deadline = time.monotonic() + 300
        while last_step(run) < past:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(children(process.pid)[-1], signal.SIGKILL)
        process.communicate(timeout=300)
        assert process.returncode != 0


@pytest.mark.timeout(900)
def test_a_refusal_of_the_main_process_ends_all(recipe: Path, tmp_path: Path) -> None:
    """None waits for a process that has gone, and the reason is said once."""
    nowhere, run = tmp_path / "nowhere.jsonl", tmp_path / "run"
    with launched(launch_command(recipe, nowhere, run, warm.python()), WARM_WORKERS) as process:
        _, said = process.communicate(timeout=300)
    assert process.returncode != 0
    assert said.count("stepback train: ") == 1
    assert "nowhere.jsonl" in said


@pytest.mark.parametrize(
    ("variable", "kind"),
    [("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")],
)
def test_muon_refuses_matrices_in_pieces(
    variable: str, kind: str, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE + 'optimizer = "muon"\n')
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ValueError, match=f"muon needs whole matrices, and {kind}"):
        train(Recipe.read(path), samples, tmp_path / "run")


def test_fsdp_refuses_what_it_cannot_shard_or_export(
    recipe: Path, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_STATE_DICT_TYPE", "SHARDED_STATE_DICT")
    with pytest.raises(ValueError, match="must be FULL_STATE_DICT"):
        train(Recipe.read(recipe), samples, tmp_path / "run")
    make_base_model(tmp_path, tied=True)
    tied = AutoModelForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="whose head is its embedding does not go with FSDP"):
        add_adapter(tied, LoraRecipe(), 5)
