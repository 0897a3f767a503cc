"""Samples that share their prompt, and a head that is computed where there is a loss alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from stepback_core.trace import Grammar, TraceCodec
from stepback_training.config import Recipe
from stepback_training.data.samples import Sample
from stepback_training.train.encoded_samples import EncodedSamples
from stepback_training.train.isolation import has_tree_masks, takes_added_masks
from stepback_training.train.loss_mask import IGNORED
from stepback_training.train.packing import PackedRows
from stepback_training.train.shared_prompts import Collator, alike
from stepback_training.train.tokenizer import make_tokenizer
from stepback_training.train.trainer import StepbackTrainer, arguments_of, collator_of

TOKENIZER: Any = make_tokenizer(Grammar(), tasks=["countdown"], digits_per_token=1)
CODEC = TraceCodec.of(Grammar(), TOKENIZER)
PROMPT = "countdown:1,2,3=6"
SAMPLES = [
    Sample(prompt=PROMPT, steps=["1+2=3", "3+3=6"]),
    Sample(prompt="countdown:9,8=17", steps=["9+8=17"]),
    Sample(prompt=PROMPT, steps=["1+2=3"], wrong_step="3-3=1"),
    Sample(prompt=PROMPT, steps=[], wrong_step="2+3=6", follow_ups=["6+1=7"]),
    Sample(prompt="countdown:5,8=13", steps=["8+5=13"], beginning=True),
]
ENCODED = EncodedSamples.of(SAMPLES, CODEC)
_ROUNDING = 1e-4
"""Another order of sums, over some steps of training."""


def llama(attention: str = "sdpa") -> Any:
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(TOKENIZER),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=128,
        )
    )
    model.set_attn_implementation(attention)
    return model


def token_losses(model: Any, **inputs: torch.Tensor) -> list[list[float]]:
    """The loss of each token that has one, row by row."""
    labels = inputs.pop("labels")[:, 1:]
    with torch.no_grad():
        logits = model.eval()(**inputs, use_cache=False).logits[:, :-1]
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return [row[there].tolist() for row, there in zip(losses, labels != IGNORED, strict=True)]


def alone(sample: int, encoded: EncodedSamples = ENCODED) -> dict[str, torch.Tensor]:
    there = encoded.there(sample)
    ids = torch.from_numpy(encoded.ids_of(sample).astype("int64"))[None]
    has_loss = torch.from_numpy(encoded.has_loss[there])
    return {"input_ids": ids, "labels": torch.where(has_loss, ids, IGNORED)}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("row_tokens", [128, 45])
def test_each_branch_has_the_loss_that_it_has_alone(attention: str, row_tokens: int) -> None:
    model = llama(attention)
    rows = PackedRows(ENCODED, row_tokens, TOKENIZER.pad_token_id, 0, share_prompts=True)
    collator = Collator(tree=True, additive=takes_added_masks(model), head_on_loss=False)
    batch = collator([rows[index] for index in range(len(rows))])
    found = sorted(loss for row in token_losses(model, **batch) for loss in row)
    wanted = sorted(
        loss
        for sample in range(len(SAMPLES))
        for row in token_losses(model, **alone(sample))
        for loss in row
    )
    torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted))
    assert has_tree_masks(model)


def test_a_shared_prompt_is_there_once() -> None:
    shared, plain = (
        PackedRows(ENCODED, 128, TOKENIZER.pad_token_id, 0, share_prompts=share)
        for share in (True, False)
    )
    # All but its last token, which opens each branch, of two of its three samples.
    assert plain.tokens - shared.tokens == 2 * (len(CODEC.encode_prompt(PROMPT)) - 1)
    assert plain.tokens == int(ENCODED.lengths.sum())
    [row] = [shared[index] for index in range(len(shared))]
    text = TOKENIZER.decode(row["input_ids"].tolist())
    assert text.count(PROMPT) == 1 and text.count("<backtrack>") == 2
    assert set(plain[0]) == {"input_ids", "position_ids", "labels"}


BRANCHING = EncodedSamples.of(
    [
        *SAMPLES,
        Sample(prompt=PROMPT, steps=["1+2=3"], wrong_step="3-3=0"),
        Sample(prompt=PROMPT, steps=["1+2=3", "3+3=6"]),
        Sample(prompt=PROMPT, steps=["1+2=3"], beginning=True),
        Sample(prompt="countdown:1,2,3=7", steps=["1+2=3"], wrong_step="3+3=7"),
        Sample(prompt="countdown:1,2,3=7", steps=[], wrong_step="1+2=3"),
    ],
    CODEC,
)


def losses_of_beginnings(model: Any, encoded: EncodedSamples) -> dict[tuple[int, ...], float]:
    """The loss of each token that has one, by the ids up to it: of all samples, each alone."""
    found: dict[tuple[int, ...], float] = {}
    for sample in range(len(encoded)):
        [row] = token_losses(model, **alone(sample, encoded))
        ids, has_loss = encoded.ids_of(sample).tolist(), encoded.has_loss[encoded.there(sample)]
        places = [at for at, learned in enumerate(has_loss.tolist()) if learned]
        found |= {tuple(ids[: at + 1]): loss for at, loss in zip(places, row, strict=True)}
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("row_tokens", [128, 60])
def test_a_shared_beginning_has_its_loss_once(seed: int, row_tokens: int) -> None:
    model = llama()
    pad = TOKENIZER.pad_token_id
    rows = PackedRows(BRANCHING, row_tokens, pad, seed, share_beginnings=True)
    collator = Collator(tree=True, additive=False, head_on_loss=False)
    batch = collator([rows[index] for index in range(len(rows))])
    found = sorted(loss for row in token_losses(model, **batch) for loss in row)
    wanted = sorted(losses_of_beginnings(model, BRANCHING).values())
    if row_tokens == 128:  # All that is alike is in one row.
        torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted))
    # Beginnings that fell apart into several rows are there once in each.
    assert len(found) >= len(wanted)
    nearest = [min(abs(loss - other) for other in wanted) for loss in found]
    assert max(nearest) < 1e-4
    assert rows.tokens < PackedRows(BRANCHING, row_tokens, pad, seed, share_prompts=True).tokens


def test_prompts_are_alike_where_half_of_them_is() -> None:
    prompts = [b"abcdX", b"abcdY", b"abZZZ", b"q", b"abcdX"]
    assert alike(prompts) == [b"abcdX", b"abcdX", b"abZZZ", b"q", b"abcdX"]


def test_a_model_that_ignores_a_mask_is_found_out() -> None:
    model = llama()
    forward = model.forward
    model.forward = lambda *, attention_mask=None, **inputs: forward(**inputs)
    assert not has_tree_masks(model)


def losses(folder: Path, **train: Any) -> list[float]:
    """Log of a few steps of training."""
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "data": {"samples": 1},
            "scratch": {},
            "train": {
                "learning_rate": 1e-3,
                "batch_tokens": 256,
                "row_tokens": 64,
                "micro_rows": 2,
                "warmup_steps": 0,
                "tokens": 2000,
                "checkpoint_every": 1000,
                # Rounds alike on every machine: bfloat16 is for those that are fast in it.
                "precision": "fp32",
            }
            | train,
        }
    )
    fit, model = recipe.train, llama()
    samples = EncodedSamples.of(SAMPLES * 10, CODEC)
    rows = PackedRows(
        samples,
        fit.row_tokens,
        TOKENIZER.pad_token_id,
        0,
        multiple=fit.rows_per_step,
        share_prompts=fit.share_prompts,
        share_beginnings=fit.share_beginnings,
    )
    arguments = arguments_of(recipe, folder, rows, 1)
    arguments.save_strategy = "no"
    arguments.disable_tqdm = True
    trainer = StepbackTrainer(
        recipe=fit,
        marker_id=CODEC.tokens.marker_id,
        seconds_before=0.0,
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=collator_of(fit, model),
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_a_head_on_losses_alone_trains_the_same(tmp_path: Path) -> None:
    everywhere, on_losses = (losses(tmp_path, head=head) for head in ("all", "loss"))
    assert len(everywhere) > 5 and everywhere[-1] < everywhere[0]
    assert on_losses == pytest.approx(everywhere, rel=_ROUNDING)
    for option in ("share_prompts", "share_beginnings"):
        shared = losses(tmp_path, head="loss", **{option: True})
        assert shared[-1] < shared[0]


def test_a_weight_on_the_marker_trains_the_same_with_either_head(tmp_path: Path) -> None:
    everywhere, on_losses = (
        losses(tmp_path, head=head, marker_weight=4.0) for head in ("all", "loss")
    )
    assert on_losses == pytest.approx(everywhere, rel=_ROUNDING)
    # The same tokens divide it, so what the marker adds comes on top.
    assert everywhere[0] > losses(tmp_path)[0]
