"""The model that a recipe trains."""

from pathlib import Path

import pytest

from stepback_training.model import attention_of, make_model
from stepback_training.recipe import DataRecipe, Recipe, ScratchModel, TrainRecipe

SHORT = TrainRecipe(learning_rate=1e-3, batch_tokens=1024, row_tokens=512)
LONG = TrainRecipe(learning_rate=1e-3, batch_tokens=1024, row_tokens=1024)


@pytest.mark.parametrize(
    ("fit", "on_gpu", "attention"),
    [(SHORT, False, "eager"), (LONG, False, None), (SHORT, True, None)],
)
def test_short_rows_on_a_cpu_take_the_plain_attention(
    fit: TrainRecipe, on_gpu: bool, attention: str | None
) -> None:
    assert attention_of(fit, on_gpu=on_gpu) == attention
    said = fit.model_copy(update={"attention": "sdpa"})
    assert attention_of(said, on_gpu=on_gpu) == "sdpa"


def test_a_checkpoint_does_not_say_which_attention_trained_it(tmp_path: Path) -> None:
    shape = ScratchModel(hidden_size=32, intermediate_size=64, layers=1, heads=2)
    data = DataRecipe(samples=1)
    model, _, _ = make_model(Recipe(name="small", data=data, scratch=shape, train=SHORT))
    assert model.config._attn_implementation == "eager"
    model.save_pretrained(tmp_path)
    assert "eager" not in (tmp_path / "config.json").read_text()
