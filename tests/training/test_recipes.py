"""The recipes of the folder, the launches beside them, and what a recipe refuses."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType

from stepback_core.errors import InvalidInput
from stepback_training.config import BaseModelChoice, LoraRecipe, Recipe, TrainRecipe
from tests.conftest import ROOT

RECIPES = sorted((ROOT / "training/recipes").glob("*.toml"))
LAUNCHES = ROOT / "training/recipes/accelerate"
TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"samples": 1},
    "base": {"path": "somewhere"},
    "train": {"learning_rate": 1e-3},
}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_folder_can_be_read(path: Path) -> None:
    recipe = Recipe.read(path)
    assert path.read_text().startswith("# "), "it says what it is"
    assert f"training/recipes/{path.name}" in path.read_text(), "it says how it is run"
    assert recipe.train.rows_per_step >= 1


@pytest.mark.parametrize("size", ["1b", "3b"])
def test_the_llama_recipes_have_the_papers_settings(size: str) -> None:
    recipe = Recipe.read(ROOT / f"training/recipes/llama-3.2-{size}.toml")
    assert recipe.base == BaseModelChoice(path=f"meta-llama/Llama-3.2-{size.upper()}")
    fit, data = recipe.train, recipe.data
    assert (fit.learning_rate, fit.schedule, fit.epochs) == (1e-5, "cosine", 3)
    assert (data.samples, data.backtrack_share) == (500_000, 0.5)
    assert list(data.errors.values()) == [1, 2, 2]
    assert fit.precision == ("fp32" if size == "1b" else "bf16")
    for processes in (1, 2, 4, 8):
        rows, passes = fit.passes(processes)
        assert rows * passes * processes * fit.row_tokens == fit.batch_tokens


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": None, "scratch": {}, "lora": {}}, "[lora] adapts a [base]"),
        ({"lora": {}, "train": {"learning_rate": 1, "optimizer": "muon"}}, "takes adamw"),
        ({"lora": {"rank": 0}}, "lora.rank"),
        ({"lora": {"dropout": 1}}, "lora.dropout"),
        ({"train": {"learning_rate": 1, "precision": "fp8"}}, "train.precision"),
        ({"train": {"learning_rate": 1, "report_to": ["paper"]}}, "train.report_to"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(_toml({k: v for k, v in (TINY | changes).items() if v is not None}))
    with pytest.raises(InvalidInput, match=re.escape(message)):
        Recipe.read(path)


@pytest.mark.parametrize(
    ("given", "epochs"), [({}, 1.0), ({"epochs": 1.5}, 1.5), ({"tokens": 500}, 0.25)]
)
def test_training_is_as_long_as_its_epochs_or_its_tokens_say(
    given: dict[str, float], epochs: float
) -> None:
    fit = TrainRecipe.model_validate({"learning_rate": 1e-3} | given)
    assert fit.epochs_over(2000) == epochs


def test_epochs_and_tokens_together_are_refused() -> None:
    with pytest.raises(ValueError, match="give these or tokens, not both"):
        TrainRecipe(learning_rate=1e-3, epochs=1, tokens=500)


@pytest.mark.parametrize(
    ("trained", "round_of"), [({"epochs": 2}, {"tokens": 500}), ({"tokens": 500}, {"epochs": 2})]
)
def test_a_round_may_be_as_long_by_the_other_measure(
    trained: dict[str, int], round_of: dict[str, int]
) -> None:
    recipe = Recipe.model_validate(
        {"name": "r", "data": {"samples": 1}, "base": {"path": "p"}}
        | {"train": {"learning_rate": 1e-3} | trained, "improve": {"train": round_of}}
    )
    found = recipe.round_train.model_dump(include={"epochs", "tokens"}, exclude_none=True)
    assert found == round_of


def test_defaults_of_an_adapter() -> None:
    assert Recipe.model_validate(TINY | {"lora": {}}).lora == LoraRecipe()


def test_processes_share_a_step_evenly_or_are_refused() -> None:
    fit = TrainRecipe(learning_rate=1, batch_tokens=4096, row_tokens=256, micro_rows=2)
    assert fit.passes(4) == (2, 2)
    whole = TrainRecipe(learning_rate=1, batch_tokens=4096, row_tokens=256)
    assert whole.passes(1) == (16, 1) and whole.passes(4) == (4, 1)
    assert fit.passes(1, on_gpu=False) == (2, 8)
    for recipe, processes in ((fit, 16), (fit, 3), (whole, 3)):
        with pytest.raises(ValueError, match=f"{processes} processes cannot share the 16 rows"):
            recipe.passes(processes)


@pytest.mark.parametrize(
    ("batch", "row", "processes", "passes"),
    [
        (16384, 256, 1, (16, 4)),
        (16384, 256, 2, (16, 2)),
        (2048, 256, 1, (8, 1)),
        # The largest part of 38 rows that is no more than 13.
        (11552, 304, 1, (2, 19)),
        (16384, 8192, 1, (1, 2)),
    ],
)
def test_a_pass_on_a_cpu_is_a_small_one(
    batch: int, row: int, processes: int, passes: tuple[int, int]
) -> None:
    fit = TrainRecipe(learning_rate=1, batch_tokens=batch, row_tokens=row)
    assert fit.passes(processes, on_gpu=False) == passes


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("zero2", DistributedType.DEEPSPEED),
        ("fsdp", DistributedType.FSDP),
        ("cpu2", DistributedType.MULTI_GPU),
    ],
)
def test_accelerate_reads_the_launches(name: str, kind: DistributedType) -> None:
    path = LAUNCHES / f"{name}.yaml"
    config: Any = load_config_from_file(str(path))
    assert config.distributed_type == kind
    assert config.num_processes > 1
    # The recipe decides on precision, and the manifest says what it decided.
    assert config.mixed_precision == "no"
    # What accelerate does not know it would leave out in silence.
    known = vars(launch_command_parser().parse_args(["script.py"]))
    fields = yaml.safe_load(path.read_text())
    for section in ("fsdp_config", "deepspeed_config"):
        assert fields.get(section, {}).keys() <= known.keys()


def test_every_launch_is_checked() -> None:
    assert {path.stem for path in LAUNCHES.glob("*.yaml")} == {"zero2", "fsdp", "cpu2"}


def _toml(fields: dict[str, Any]) -> str:
    """Plain fields first, then one table a section."""
    plain = [f"{k} = {_value(v)}" for k, v in fields.items() if not isinstance(v, dict)]
    tables = [
        "\n".join([f"[{name}]", *(f"{k} = {_value(v)}" for k, v in section.items())])
        for name, section in fields.items()
        if isinstance(section, dict)
    ]
    return "\n".join([*plain, *tables])


def _value(value: Any) -> str:
    return repr(value).replace("'", '"')
