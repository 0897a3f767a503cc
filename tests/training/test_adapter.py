"""Low-rank adapters on a base model: what they train, what is saved, what comes out of them."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from stepback_core.errors import InvalidInput
from stepback_core.manifest import Manifest
from stepback_server.checkpoint import Checkpoint
from stepback_training.bases.grammar import Wishes
from stepback_training.config import DataRecipe, LoraRecipe, Recipe
from stepback_training.data.samples import write_samples
from stepback_training.importing.cli import import_model
from stepback_training.importing.import_base import Import, import_base
from stepback_training.train.checkpoint import resumable
from stepback_training.train.lora import add_adapter, export_adapter, load_adapter, merged
from stepback_training.train.model import make_model
from stepback_training.train.sft import train
from tests.conftest import ROOT, controller
from tests.training.runs import assert_same, make_base_model, read_tensors

PAGE = ROOT / "docs/base-models.md"
RECIPE = """
name = "adapted"
[data]
samples = 1000
[base]
path = "{base}"
[lora]
rank = 4
dropout = 0.1
[train]
learning_rate = 5e-3
precision = "fp32"
gradient_checkpointing = true
warmup_steps = 5
batch_tokens = 1024
row_tokens = 128
checkpoint_every = 5
"""
LORA = LoraRecipe(rank=4)


def write_recipe(folder: Path, *, tied: bool) -> Path:
    """A recipe with adapters, and the base model that it starts from."""
    make_base_model(folder / "base", tied=tied)
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(base=folder / "base"))
    return path


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "samples.jsonl"
    write_samples(DataRecipe(samples=1000), path, processes=1)
    return path


def adapted_model(folder: Path, *, tied: bool, trained: bool) -> tuple[PeftModel, int]:
    """A small base model with adapters, and the marker's id."""
    model, tokenizer, grammar = make_model(Recipe.read(write_recipe(folder, tied=tied)))
    marker_id: int = tokenizer.convert_tokens_to_ids(grammar.marker)
    adapted = add_adapter(model, LORA, marker_id)
    if trained:
        train_a_little(adapted, marker_id)
    return adapted.eval(), marker_id


def some_ids(marker_id: int) -> torch.Tensor:
    ids = torch.randint(0, marker_id, (4, 24), generator=torch.Generator().manual_seed(0))
    ids[:, 12] = marker_id
    return ids


def train_a_little(model: Any, marker_id: int) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    ids = some_ids(marker_id)
    for _ in range(5):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_a_merged_model_gives_the_logits_of_its_adapters(tmp_path: Path, tied: bool) -> None:
    with torch.enable_grad():
        model, marker_id = adapted_model(tmp_path, tied=tied, trained=True)
    ids = some_ids(marker_id)
    adapters: torch.Tensor = model(input_ids=ids).logits
    plain = merged(model)
    assert type(plain).__name__ == "LlamaForCausalLM"
    torch.testing.assert_close(plain(input_ids=ids).logits, adapters, atol=1e-5, rtol=1e-5)
    plain.save_pretrained(tmp_path / "plain")
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert not any("lora" in name for name in loaded.state_dict())
    torch.testing.assert_close(loaded(input_ids=ids).logits, adapters, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_of_the_lookups_only_the_markers_rows_are_trained(tmp_path: Path, tied: bool) -> None:
    model, marker_id = adapted_model(tmp_path, tied=tied, trained=True)
    plain = merged(model)
    before, _, _ = make_model(Recipe.read(tmp_path / "recipe.toml"))
    for name in ("get_input_embeddings", "get_output_embeddings"):
        old, new = (getattr(each, name)().weight.detach() for each in (before, plain))
        changed = (old != new).any(1).nonzero().flatten().tolist()
        assert changed == [marker_id]
    # And every matrix of the layers, through its adapter.
    old, new = before.state_dict(), plain.state_dict()
    for name in old:
        if name.endswith("proj.weight"):
            assert not torch.equal(old[name], new[name]), name


def test_a_checkpoint_holds_the_adapters_alone(tmp_path: Path) -> None:
    model, marker_id = adapted_model(tmp_path, tied=True, trained=True)
    for _ in range(2):  # PEFT looks the base model's name up at the first save, and uses it later.
        model.save_pretrained(str(tmp_path / "adapters"))
    saved = read_tensors(tmp_path / "adapters/adapter_model.safetensors")
    assert not any(name.endswith("base_layer.weight") for name in saved)
    fresh, _, _ = make_model(Recipe.read(tmp_path / "recipe.toml"))
    adapted = add_adapter(fresh, LORA, marker_id)
    load_adapter(adapted, tmp_path / "adapters")
    assert_same(adapted.state_dict(), model.state_dict())


def test_modules_that_are_not_there_are_refused(tmp_path: Path) -> None:
    model, _, _ = make_model(Recipe.read(write_recipe(tmp_path, tied=True)))
    with pytest.raises(ValueError, match=r"nowhere.* not found"):
        add_adapter(model, LoraRecipe(target_modules=["nowhere"]), 5)


@pytest.mark.parametrize(("package", "option"), [("peft", "lora"), ("wandb", "report_to")])
def test_what_an_option_needs_and_is_not_installed_is_named(
    tmp_path: Path, samples: Path, package: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_recipe(tmp_path, tied=True)
    if package == "wandb":
        path.write_text(f'{path.read_text()}report_to = ["tensorboard", "wandb"]\n')
    # As Python itself marks what cannot be imported.
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"{package} is not installed, and .*{option}"):
        train(Recipe.read(path), samples, tmp_path / "run")


def as_a_kill_left_it(run: Path, to: Path) -> int:
    """Copy a run as it was at the last checkpoint but one; gives the step of that."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("model"))
    [left, last] = resumable(to / "checkpoints")
    shutil.rmtree(last)
    return int(left.name.rpartition("-")[2])


def order(base: Path, adapter: Path | None, folder: Path, **other: Any) -> Import:
    fields = {"name": "again", "wishes": Wishes(), "tasks": []} | other
    return Import(str(base), folder, adapter=adapter, **fields)


def check_import(base: Path, run: Path, folder: Path) -> None:
    """The page's command makes the model of a run, of its base and its adapter."""
    block = re.search(
        r"run by tests/training/test_adapter.py -->\n```sh\n(.*?)\n```", PAGE.read_text()
    )
    assert block
    program, command, *words = block[1].split()
    assert (program, command) == ("stepback", "import")
    names = {"smollm2": base, "run/adapter": run / "adapter", "merged": folder}
    assert import_model([str(names.get(word, word)) for word in words]) == 0
    trained, imported = (
        read_tensors(each / "model.safetensors") for each in (run / "model", folder)
    )
    assert_same(trained, {name: each.bfloat16() for name, each in imported.items()})
    ours, other = Manifest.read(folder), Manifest.read(run / "model")
    assert (ours.name, ours.base_model) == (folder.name, str(base))
    assert (ours.grammar, ours.tasks, ours.recipe) == (other.grammar, other.tasks, other.recipe)


def elsewhere(folder: Path, *, tied: bool, **options: Any) -> Any:
    """A base in `base`, and in `adapter` an adapter of it as a training elsewhere leaves it."""
    make_base_model(folder / "base", tied=tied)
    base: Any = AutoModelForCausalLM.from_pretrained(folder / "base")
    config = LoraConfig(task_type="CAUSAL_LM", r=2, **options)
    adapted: Any = get_peft_model(base, config)
    train_a_little(adapted, 5)
    adapted.save_pretrained(str(folder / "adapter"))
    return adapted.eval()


def check_merged(adapted: Any, folder: Path) -> None:
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder)
    ids = some_ids(5)
    with torch.no_grad():
        old = adapted(input_ids=ids).logits
        new = loaded(input_ids=ids).logits[..., : old.shape[-1]]
    torch.testing.assert_close(new, old, atol=1e-5, rtol=1e-5)


def test_an_adapter_from_elsewhere_is_merged_too(tmp_path: Path) -> None:
    adapted = elsewhere(tmp_path, tied=True, target_modules="all-linear")
    wishes = Wishes(marker="<undo>")
    merged_folder = tmp_path / "merged"
    imported = import_base(
        order(tmp_path / "base", tmp_path / "adapter", merged_folder, wishes=wishes)
    )
    assert imported.manifest.grammar.marker == "<undo>" and imported.adopted.marker_is_new
    check_merged(adapted, merged_folder)


@pytest.mark.filterwarnings("ignore:Model has .tie_word", "ignore:Setting .save_embedding")
def test_an_adapter_of_the_head_needs_a_head_of_its_own(tmp_path: Path) -> None:
    of_the_head = ["q_proj", "lm_head"]
    tied, untied = tmp_path / "tied", tmp_path / "untied"
    elsewhere(tied, tied=True, target_modules=of_the_head)
    with pytest.raises(InvalidInput, match=r"which are one in the base: .* --untie"):
        import_base(order(tied / "base", tied / "adapter", tmp_path / "out"))
    adapted = elsewhere(untied, tied=False, target_modules=of_the_head)
    import_base(order(untied / "base", untied / "adapter", tmp_path / "out"))
    check_merged(adapted, tmp_path / "out")
    model, _, _ = make_model(Recipe.read(write_recipe(tmp_path / "again", tied=True)))
    with pytest.raises(ValueError, match="target_modules: the head of this model is its embedding"):
        add_adapter(model, LoraRecipe(target_modules=["lm_head"]), 5)


def test_an_adapter_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    elsewhere(tmp_path, tied=True, target_modules="all-linear")
    with pytest.raises(InvalidInput, match=r"adapter_config.json: there is none"):
        import_base(order(base, base, out))
    with pytest.raises(InvalidInput, match="there is no such folder"):
        import_base(order(base, tmp_path / "nowhere", out))
    with pytest.raises(InvalidInput, match="it is the adapter itself"):
        import_base(order(base, adapter, adapter))
    weights = adapter / "adapter_model.safetensors"
    tensors = read_tensors(weights)
    save_file({name: each for name, each in tensors.items() if "layers.0" not in name}, weights)
    with pytest.raises(
        InvalidInput, match=r"of another model: .* do not meet, such as .*layers\.0"
    ):
        import_base(order(base, adapter, out))
    weights.write_bytes(b"\0" * 16)
    with pytest.raises(InvalidInput, match="does not fit the base"):
        import_base(order(base, adapter, out))
    weights.unlink()
    with pytest.raises(InvalidInput, match="the adapter has no weights"):
        import_base(order(base, adapter, out))
    assert not out.exists()


def test_an_adapter_with_no_place_in_the_weights_is_refused(tmp_path: Path) -> None:
    make_base_model(tmp_path / "base", tied=True)
    base: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    get_peft_model(base, prompts).save_pretrained(str(tmp_path / "adapter"))
    with pytest.raises(InvalidInput, match=r"no weights can take .* \(PROMPT_TUNING\)"):
        import_base(order(tmp_path / "base", tmp_path / "adapter", tmp_path / "out"))


def exported_adapter(folder: Path, *, tied: bool) -> tuple[PeftModel, Path]:
    """An adapter of a training here, with its manifest, and the model that it belongs to."""
    model, _ = adapted_model(folder, tied=tied, trained=True)
    model.save_pretrained(str(folder / "checkpoint"))
    # The manifest is that of an import: the ids are the same.
    plain = import_base(order(folder / "base", None, folder / "plain"))
    export_adapter(folder / "adapter", folder / "checkpoint", plain.manifest)
    return model, folder / "adapter"


@pytest.mark.parametrize("tied", [True, False])
def test_an_adapter_of_a_training_brings_the_markers_rows(tmp_path: Path, tied: bool) -> None:
    model, adapter = exported_adapter(tmp_path, tied=tied)
    import_base(order(tmp_path / "base", adapter, tmp_path / "merged"))
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    ids = some_ids(400)
    with torch.no_grad():
        old, new = (each(input_ids=ids).logits for each in (model, loaded))
    torch.testing.assert_close(new, old, atol=1e-5, rtol=1e-5)
    with pytest.raises(InvalidInput, match="give none of them"):
        import_base(order(tmp_path / "base", adapter, tmp_path / "out", tasks=["countdown"]))
    make_base_model(tmp_path / "other", tied=not tied)
    with pytest.raises(InvalidInput, match=r"the adapter is for .*, and this is "):
        import_base(order(tmp_path / "other", adapter, tmp_path / "out"))
    manifest = Manifest.read(adapter)
    manifest.model_copy(update={"end_id": 7}).write(adapter)
    with pytest.raises(InvalidInput, match="its vocabulary is another"):
        import_base(order(tmp_path / "base", adapter, tmp_path / "out"))
    (adapter / "stepback.json").unlink()
    with pytest.raises(InvalidInput, match="tokens that the base lacks"):
        import_base(order(tmp_path / "base", adapter, tmp_path / "out"))
    with pytest.raises(InvalidInput, match=r"it is an adapter: .* --adapter .* --out FOLDER"):
        Checkpoint.open(adapter)


@pytest.mark.timeout(900)
def test_the_whole_line_with_adapters_resumed_and_served(tmp_path: Path, samples: Path) -> None:
    recipe = Recipe.read(write_recipe(tmp_path, tied=True))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(recipe, samples, whole)
    assert as_a_kill_left_it(whole, killed) > 10
    train(recipe, samples, killed)
    for name in ("adapter_model.safetensors", "optimizer.pt"):
        files = [resumable(run / "checkpoints")[-1] / name for run in (whole, killed)]
        assert_same(*map(read_tensors, files))
    one, other = (read_tensors(run / "model/model.safetensors") for run in (whole, killed))
    assert_same(one, other)
    # Once more, as after a kill between the last step and the export.
    shutil.rmtree(killed / "model")
    train(recipe, samples, killed)
    assert_same(one, read_tensors(killed / "model/model.safetensors"))
    check_import(tmp_path / "base", killed, tmp_path / "imported")
    facts = Manifest.read(killed / "model").training
    assert 0 < facts["trained_parameters"] < facts["parameters"] / 2
    with controller(tmp_path / "log.txt", killed / "model") as url:
        body = {"task": "countdown", "problem": {"numbers": [3, 5, 7, 25], "target": 41}}
        response = httpx.post(f"{url}/solve", json=body, timeout=300)
    assert response.status_code == 200
    assert response.json()["usage"]["generated_tokens"] > 0
