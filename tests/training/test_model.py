"""The model that a recipe trains."""

from pathlib import Path

import pytest
import torch
from transformers import FalconConfig, FalconForCausalLM

from stepback_training.config import BaseModelChoice, DataRecipe, Recipe, ScratchModel, TrainRecipe
from stepback_training.train.model import attention_of, make_model
from tests.training.runs import make_base_model

SHORT = TrainRecipe(learning_rate=1e-3, batch_tokens=1024, row_tokens=128)
LONG = SHORT.model_copy(update={"row_tokens": 256})


@pytest.mark.parametrize(
    ("fit", "on_gpu", "attention"),
    [
        (SHORT, False, "eager"),
        (LONG, False, None),
        (LONG.model_copy(update={"compile": True}), False, "eager"),
        (LONG.model_copy(update={"compile": True, "row_tokens": 1024}), False, None),
        (SHORT, True, None),
    ],
)
def test_short_rows_on_a_cpu_take_the_plain_attention(
    fit: TrainRecipe, on_gpu: bool, attention: str | None
) -> None:
    assert attention_of(fit, on_gpu=on_gpu) == attention
    said = fit.model_copy(update={"attention": "sdpa"})
    assert attention_of(said, on_gpu=on_gpu) == "sdpa"


def test_a_checkpoint_does_not_say_which_attention_trained_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    shape = ScratchModel(hidden_size=32, intermediate_size=64, layers=1, heads=2)
    data = DataRecipe(samples=1)
    model, _, _ = make_model(Recipe(name="small", data=data, scratch=shape, train=SHORT))
    assert model.config._attn_implementation == "eager"
    model.save_pretrained(tmp_path)
    assert "eager" not in (tmp_path / "config.json").read_text()


def test_an_attention_that_a_model_does_not_have_is_refused(tmp_path: Path) -> None:
    make_base_model(tmp_path, tied=False)
    shape = FalconConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    FalconForCausalLM(shape).save_pretrained(tmp_path)
    base, data = BaseModelChoice(path=str(tmp_path)), DataRecipe(samples=1)
    said = SHORT.model_copy(update={"attention": "eager"})
    with pytest.raises(ValueError, match=r"train\.attention"):
        make_model(Recipe(name="small", data=data, base=base, train=said))
    make_model(Recipe(name="small", data=data, base=base, train=SHORT))
