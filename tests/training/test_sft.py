"""Whole runs on tiny models: from scratch, from a base model, killed and resumed."""

import json
import signal
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
)

from stepback_core.manifest import Manifest
from stepback_core.trace import TraceCodec
from stepback_server.checkpoint import Checkpoint
from stepback_training.cli import data
from stepback_training.config import DataRecipe, Recipe
from stepback_training.data.samples import read_samples, write_samples
from stepback_training.train.checkpoint import resumable
from stepback_training.train.loss_mask import encode
from stepback_training.train.model import add_token_rows, embedding_rows, make_model
from stepback_training.train.run_folder import held, note_start
from stepback_training.train.sft import train
from tests import warm
from tests.conftest import ROOT, controller
from tests.training.runs import (
    assert_same,
    finish,
    finish_in_a_new_python,
    last_step,
    make_base_model,
    read_tensors,
    train_command,
    train_until,
)

SCRATCH = "[scratch]\nhidden_size = 32\nintermediate_size = 64\nlayers = 2\nheads = 1\n"


def write_recipe(folder: Path, *, model: str = SCRATCH, optimizer: str = "muon") -> Path:
    path = folder / "recipe.toml"
    path.write_text(
        f"""
name = "tiny"
[data]
samples = 2000
{model}
[train]
learning_rate = 1e-3
optimizer = "{optimizer}"
schedule = "wsd"
warmup_steps = 5
epochs = 1.5
batch_tokens = 2048
row_tokens = 128
micro_rows = 8
checkpoint_every = 5
"""
    )
    return path


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "samples.jsonl"
    write_samples(DataRecipe(samples=2000), path, processes=2)
    return path


def test_a_run_ends_in_a_checkpoint_that_transformers_loads(tmp_path: Path, samples: Path) -> None:
    run = tmp_path / "run"
    finish(train_command(write_recipe(tmp_path), samples, run))
    weights = (run / "model/model.safetensors").read_bytes()
    written = (run / "model/stepback.json").read_text()
    # Once more, as after a kill between the last step and the export: the same, and no step more.
    finish(train_command(tmp_path / "recipe.toml", samples, run))
    assert (run / "model/model.safetensors").read_bytes() == weights
    again = json.loads((run / "model/stepback.json").read_text())
    assert again["training"].pop("hours") >= 0
    assert again["training"].items() <= json.loads(written)["training"].items()
    model = AutoModelForCausalLM.from_pretrained(run / "model")
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    checkpoint = Checkpoint.open(run / "model")
    manifest = checkpoint.manifest
    assert manifest.name == "tiny" and manifest.tasks == ["countdown"]
    assert manifest.recipe["data"]["samples"] == 2000
    assert tokenizer.decode([manifest.marker_id]) == manifest.grammar.marker
    assert embedding_rows(model) == manifest.vocabulary_size
    assert list((run / "tensorboard").iterdir())


@pytest.mark.timeout(900)
def test_a_run_killed_twice_resumes_to_the_same_weights(tmp_path: Path, samples: Path) -> None:
    recipe = write_recipe(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish_in_a_new_python(train_command(recipe, samples, whole))
    command = train_command(recipe, samples, killed)
    for step in (10, 25):
        train_until(step, command, killed, signal.SIGKILL)
    assert not (killed / "model").exists(), "it ended before it was killed"
    resumed_from = last_step(killed)
    assert resumed_from >= 25
    finish(command)
    assert last_step(killed) == last_step(whole) > resumed_from
    assert (killed / "model/stepback.json").exists()
    # In float32, as they were trained, and the optimizer's state too.
    for name in ("model.safetensors", "optimizer.pt"):
        files = [resumable(run / "checkpoints")[-1] / name for run in (whole, killed)]
        assert_same(*map(read_tensors, files))


def test_a_resumed_run_does_not_start_again(tmp_path: Path, samples: Path) -> None:
    """Weights put into the checkpoint in between must show in the end."""
    recipe, run = write_recipe(tmp_path), tmp_path / "run"
    command = train_command(recipe, samples, run)
    train_until(25, command, run, signal.SIGKILL)
    path = resumable(run / "checkpoints")[-1] / "model.safetensors"
    weights = load_file(path)
    name = "model.layers.0.mlp.down_proj.weight"
    weights[name] += 100
    save_file(weights, path, {"format": "pt"})
    finish(command)
    assert load_file(run / "model/model.safetensors")[name].float().mean() > 50


@pytest.mark.parametrize("change", ["recipe", "data"])
def test_a_run_does_not_go_on_with_another_recipe_or_other_data(
    tmp_path: Path, samples: Path, change: str
) -> None:
    recipe, run = write_recipe(tmp_path), tmp_path / "run"
    plain = tmp_path / "plain.jsonl"
    plain.write_bytes(samples.read_bytes())
    with held(run, Recipe.read(recipe), plain) as digest:
        note_start(run, Recipe.read(recipe), digest)
        with (
            pytest.raises(ValueError, match="another process"),
            held(run, Recipe.read(recipe), plain),
        ):
            pass
    if change == "recipe":
        recipe.write_text(recipe.read_text().replace("1e-3", "2e-3"))
    else:
        plain.write_text('{"prompt": "p", "steps": []}\n')
    with (
        pytest.raises(ValueError, match=f"another {change}"),
        held(run, Recipe.read(recipe), plain),
    ):
        pass


def test_a_training_takes_its_data_as_it_was_written(tmp_path: Path) -> None:
    """What a flag changed is noted in the run; anything else is refused, and nothing begun."""
    recipe, run, path = write_recipe(tmp_path), tmp_path / "run", tmp_path / "seed5.jsonl"
    flags = ["--recipe", str(recipe), "--out", str(path), "--processes", "1"]
    assert data([*flags, "--seed", "5", "--samples", "100"]) == 0
    finish(train_command(recipe, path, run))
    assert json.loads((run / "run.json").read_text())["recipe"]["data"]["seed"] == 5
    assert Manifest.read(run / "model").recipe["data"]["samples"] == 100
    other = Recipe.read(recipe)
    other = other.model_copy(
        update={"data": other.data.model_copy(update={"backtrack_share": 0.1})}
    )
    with pytest.raises(ValueError, match="backtrack_share"):
        train(other, path, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_refused_start_leaves_nothing_that_a_mended_one_would_meet(
    tmp_path: Path, samples: Path
) -> None:
    recipe, run = write_recipe(tmp_path), tmp_path / "run"
    with pytest.raises(FileNotFoundError):
        train(Recipe.read(recipe), tmp_path / "none.jsonl", run)
    assert not run.exists()
    good = recipe.read_text()
    recipe.write_text(good.replace("row_tokens = 128", "row_tokens = 16"))
    with pytest.raises(ValueError, match="row_tokens is 16"):
        train(Recipe.read(recipe), samples, run)
    recipe.write_text(good)
    with held(run, Recipe.read(recipe), samples):
        assert not (run / "run.json").exists()


def test_a_bad_data_file_stops_the_run_with_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\n")
    command = train_command(write_recipe(tmp_path), bad, tmp_path / "run")
    done = warm.run(*command)
    assert done.returncode == 2
    assert "bad.jsonl:1: prompt" in done.stderr


@pytest.mark.parametrize("tied", [True, False])
def test_the_markers_row_starts_at_the_mean_of_the_others(tmp_path: Path, tied: bool) -> None:
    make_base_model(tmp_path, tied=tied)
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    before = model.get_input_embeddings().weight.detach().clone()
    rows = before.shape[0]
    add_token_rows(model, [rows], rows + 1)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        torch.testing.assert_close(layer.weight[rows], layer.weight[:rows].mean(0))
    torch.testing.assert_close(model.get_input_embeddings().weight[:rows], before)


def test_a_marker_that_was_trained_before_keeps_its_row(tmp_path: Path, samples: Path) -> None:
    finish(train_command(write_recipe(tmp_path), samples, tmp_path / "first"))
    folder = tmp_path / "first/model"
    before: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    recipe = write_recipe(tmp_path, model=f'[base]\npath = "{folder}"\n')
    after, _, _ = make_model(Recipe.read(recipe))
    assert_same(before.state_dict(), after.state_dict())


@pytest.mark.timeout(900)
def test_the_whole_line_from_a_base_model_to_an_answer(tmp_path: Path) -> None:
    base = tmp_path / "base"
    make_base_model(base, tied=True)
    # The settings of Llama 3.2 1B, on a model and samples of a size for tests.
    recipe = tmp_path / "recipe.toml"
    text = (ROOT / "training/recipes/llama-3.2-1b.toml").read_text()
    text = text.replace("meta-llama/Llama-3.2-1B", str(base)).replace("500_000", "2_000")
    recipe.write_text(text.replace("epochs = 3", "epochs = 0.3"))
    samples = tmp_path / "samples.jsonl"
    write_samples(Recipe.read(recipe).data, samples, processes=2)
    finish(train_command(recipe, samples, tmp_path / "run"))
    folder = tmp_path / "run/model"
    manifest = Manifest.read(folder)
    assert manifest.grammar.end == "<|eot|>"
    codec = TraceCodec.of(manifest.grammar, AutoTokenizer.from_pretrained(folder))
    for sample in islice(read_samples(samples), 200):
        ids = encode(sample, codec).ids[len(codec.encode_prompt(sample.prompt)) :]
        steps = [*sample.steps] + ([sample.wrong_step] if sample.wrong_step else [])
        # Step boundaries are token boundaries, under byte-level BPE too.
        assert len(codec.tokens.step_ends(ids)) == len(steps)
        assert codec.decode_steps(ids) == steps
    with controller(tmp_path / "log.txt", folder) as url:
        body = {"task": "countdown", "problem": {"numbers": [3, 5, 7, 25], "target": 41}}
        response = httpx.post(f"{url}/solve", json=body, timeout=300)
    assert response.status_code == 200
    assert response.json()["usage"]["generated_tokens"] > 0
