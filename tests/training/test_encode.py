"""Ids and loss mask from one pass; rows that keep their samples apart."""

import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from stepback_core.errors import InvalidInput
from stepback_core.trace import Grammar, TraceCodec
from stepback_training.config import LoraRecipe
from stepback_training.data.samples import Sample
from stepback_training.train.encoded_samples import EncodedSamples
from stepback_training.train.lora import add_adapter
from stepback_training.train.loss_mask import IGNORED, check_round_trip, encode
from stepback_training.train.packing import PackedRows
from stepback_training.train.tokenizer import make_tokenizer

TOKENIZER: Any = make_tokenizer(Grammar(), tasks=["countdown"], digits_per_token=1)
CODEC = TraceCodec.of(Grammar(), TOKENIZER)
RIGHT = Sample(prompt="countdown:3,5=15", steps=["5*3=15"])
WRONG = Sample(prompt="countdown:3,5,2=30", steps=["5*3=15"], wrong_step="15*3=45")


def text_with_loss(sample: Sample) -> tuple[str, str]:
    encoded = encode(sample, CODEC)
    trained = [t for t, loss in zip(encoded.ids, encoded.has_loss, strict=True) if loss]
    return CODEC.tokenizer.decode(encoded.ids), CODEC.tokenizer.decode(trained)


def test_an_optimal_sample_carries_loss_on_its_steps_and_its_end() -> None:
    whole, trained = text_with_loss(RIGHT)
    assert whole == "countdown:3,5=15\n5*3=15\n<end>"
    assert trained == "5*3=15\n<end>"


def test_a_backtrack_sample_carries_none_on_its_wrong_step() -> None:
    whole, trained = text_with_loss(WRONG)
    assert whole == f"countdown:3,5,2=30\n5*3=15\n15*3=45\n{Grammar().marker}"
    assert trained == f"5*3=15\n{Grammar().marker}"


def test_a_beginning_has_no_end() -> None:
    sample = Sample(prompt="countdown:3,5,2=30", steps=["5*3=15"], beginning=True)
    assert text_with_loss(sample) == ("countdown:3,5,2=30\n5*3=15\n", "5*3=15\n")


def test_no_wrong_step_carries_loss_however_many_there_are() -> None:
    sample = WRONG.model_copy(update={"follow_ups": ["45-2=43", "43*2=86"]})
    whole, trained = text_with_loss(sample)
    assert whole == (f"countdown:3,5,2=30\n5*3=15\n15*3=45\n45-2=43\n43*2=86\n{Grammar().marker}")
    assert trained == f"5*3=15\n{Grammar().marker}"


@pytest.mark.parametrize(
    ("digits", "pieces"),
    [(1, ["1", "2", "0", "5"]), (2, ["12", "05"]), (3, ["120", "5"])],
)
def test_numbers_are_cut_from_the_left(digits: int, pieces: list[str]) -> None:
    tokenizer = make_tokenizer(Grammar(), tasks=["countdown"], digits_per_token=digits)
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("1205")) == pieces
    assert tokenizer.decode(tokenizer.encode("countdown:1205+7\n")) == "countdown:1205+7\n"


def test_each_tasks_name_is_one_token_and_further_characters_get_their_own() -> None:
    tokenizer = make_tokenizer(
        Grammar(), tasks=["maze", "mazes"], digits_per_token=1, characters="zé→"
    )
    pieces = tokenizer.convert_ids_to_tokens(tokenizer.encode("mazes:maze é→z"))
    assert pieces == ["mazes", ":", "maze", " ", "é", "→", "z"]
    nameless = make_tokenizer(Grammar(), tasks=[], digits_per_token=1)
    assert nameless.convert_ids_to_tokens(nameless.encode("a1é")) == ["a", "1", "<unknown>"]


@pytest.mark.parametrize(
    ("fields", "reserved"),
    [
        ({"prompt": Grammar().marker}, "backtrack"),
        ({"steps": ["1\n2"]}, "n"),
        ({"steps": [], "wrong_step": "<end>"}, "end"),
        ({"wrong_step": "2", "follow_ups": ["3", "4\n5"]}, "n"),
    ],
)
def test_reserved_text_in_a_sample_is_refused(fields: dict[str, Any], reserved: str) -> None:
    sample = Sample.model_validate({"prompt": "p", "steps": ["1"]} | fields)
    with pytest.raises(ValueError, match=f"sample 2: .*must not contain .*{reserved}"):
        EncodedSamples.of([RIGHT, sample], CODEC)


@pytest.mark.parametrize(
    "fields", [{"steps": ["1<pad>"]}, {"wrong_step": "2<unknown>"}, {"prompt": "<pad>"}]
)
def test_a_control_token_is_refused_anywhere_in_a_sample(fields: dict[str, Any]) -> None:
    """As `/solve` refuses it in a prompt and in given steps: none comes in by a text."""
    sample = Sample.model_validate({"prompt": "p", "steps": ["1"]} | fields)
    with pytest.raises(ValueError, match=r"sample 1: .*must not contain '<(pad|unknown)>'"):
        EncodedSamples.of([sample], CODEC)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_file_is_encoded_alike_by_any_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setattr("stepback_training.train.encoded_samples._BLOCK", 7)
    long = Sample(prompt="maze:A1", steps=["vBa", ">Bb", ">Bc", "^Ac"])
    path, samples = tmp_path / "samples.jsonl", [long, *[RIGHT, WRONG, RIGHT] * 10]
    path.write_text("".join(sample.model_dump_json() + "\n" for sample in samples))
    found = EncodedSamples.read(path, CODEC, ["countdown", "maze"], processes=processes)
    wanted = EncodedSamples.of(samples, CODEC, ["countdown", "maze"])
    for name in ("ids", "has_loss", "lengths", "starts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert len(found) == 31
    longest = {"maze": 17, "countdown": len("5*3=15\n15*3=45\n") + 1}
    assert found.longest_answers == wanted.longest_answers == longest


@pytest.mark.parametrize("processes", [1, 2])
def test_a_fault_far_down_a_file_is_told_by_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setattr("stepback_training.train.encoded_samples._BLOCK", 7)
    path = tmp_path / "samples.jsonl"
    lines = [RIGHT.model_dump_json()] * 20
    path.write_text("\n".join([*lines, '{"prompt": 3, "steps": []}']))
    with pytest.raises(InvalidInput, match=r"samples\.jsonl:21: prompt"):
        EncodedSamples.read(path, CODEC, processes=processes)
    path.write_text("\n".join([*lines, '{"prompt": "<end>", "steps": []}']))
    with pytest.raises(ValueError, match="sample 21: '<end>' must not contain"):
        EncodedSamples.read(path, CODEC, processes=processes)


def test_long_steps_take_memory_of_the_order_of_their_text() -> None:
    def samples() -> Iterator[Sample]:
        for number in range(20):
            yield Sample(prompt="1+1", steps=[f"{number}{step}" * 2500 for step in range(10, 20)])

    text = sum(len(step) for sample in samples() for step in sample.steps)
    tracemalloc.start()
    try:
        encoded = EncodedSamples.of(samples(), CODEC)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(encoded.ids) > text
    assert peak < 12 * text  # Lists would take over twenty times as much as the text.


def test_rows_hold_every_sample_once_and_pad_without_loss() -> None:
    samples = EncodedSamples.of([RIGHT, WRONG] * 20, CODEC)
    rows = PackedRows(samples, 128, pad_id=0, seed=0)
    ids = torch.stack([rows[i]["input_ids"] for i in range(len(rows))])
    labels = torch.stack([rows[i]["labels"] for i in range(len(rows))])
    assert (ids == CODEC.tokens.end_id).sum() == (ids == CODEC.tokens.marker_id).sum() == 20
    assert (labels != IGNORED).sum() == samples.has_loss.sum()
    assert ((labels == IGNORED) | (labels == ids)).all()
    assert 0.8 < rows.fill <= 1.0


def test_a_sample_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="longest sample"):
        PackedRows(EncodedSamples.of([WRONG], CODEC), 16, pad_id=0, seed=0)


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        PackedRows(EncodedSamples.of([], CODEC), 16, pad_id=0, seed=0)


def small_model(attention: str, variant: str) -> Any:
    """A small model in training mode, as a recipe with that option makes it."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(CODEC.tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=False,
        # As the Trainer sets it: with a cache, transformers would not look for packed samples.
        use_cache=False,
    )
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    if variant == "adapter":
        model = add_adapter(model, LoraRecipe(), CODEC.tokens.marker_id)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # They start at zero, where an adapter does nothing.
                torch.nn.init.normal_(parameter, std=0.1)
    if variant == "checkpointing":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("variant", ["plain", "checkpointing", "adapter"])
def test_samples_in_a_row_do_not_see_each_other(attention: str, variant: str) -> None:
    model = small_model(attention, variant)
    samples = EncodedSamples.of([RIGHT, WRONG, RIGHT, WRONG, RIGHT], CODEC)
    rows = PackedRows(samples, 80, pad_id=0, seed=0)
    every = [rows[index] for index in range(len(rows))]
    batch = {name: torch.stack([row[name] for row in every]) for name in rows[0]}
    assert len(rows) > 1, "rows of another layout in one batch, as in training"
    # With gradients, since only then is anything computed anew.
    packed = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits
    packed.sum().backward()
    for index, logits in enumerate(packed.detach()):
        row = rows[index]
        starts = np.flatnonzero(row["position_ids"].numpy() == 0)
        for start, end in pairwise([*starts, len(row["input_ids"])]):
            with torch.no_grad():
                alone = model(input_ids=row["input_ids"][None, start:end]).logits[0]
            torch.testing.assert_close(logits[start:end], alone, atol=1e-4, rtol=1e-4)


def test_without_a_shuffle_samples_keep_the_order_of_their_file() -> None:
    texts = [Sample(prompt=f"{n}+1", steps=[f"{n}+1={n + 1}"]) for n in range(60, 90)]
    samples = EncodedSamples.of(texts, CODEC)

    def in_order(*, shuffle: bool) -> bool:
        packed = PackedRows(samples, 64, pad_id=0, seed=0, shuffle=shuffle)
        rows = [packed[index]["input_ids"].numpy() for index in range(len(packed))]
        held = np.concatenate([samples.ids_of(sample) for sample in range(len(samples))])
        found = np.concatenate([row[row != 0] for row in rows])
        return np.array_equal(found, held[held != 0])

    assert in_order(shuffle=False) and not in_order(shuffle=True)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("variant", ["plain", "checkpointing", "adapter"])
def test_a_packed_row_teaches_what_its_samples_teach_alone(attention: str, variant: str) -> None:
    """The gradient of a row is the sum of its samples' gradients."""
    model = small_model(attention, variant)
    samples = EncodedSamples.of([RIGHT, WRONG, RIGHT], CODEC)
    packed = PackedRows(samples, 128, pad_id=0, seed=0)
    assert len(packed) == 1
    row = packed[0]
    starts = np.flatnonzero(row["position_ids"].numpy() == 0)
    pieces = [slice(start, end) for start, end in pairwise([*starts, len(row["input_ids"])])]
    together = gradients(model, row, [slice(None)])
    torch.testing.assert_close(gradients(model, row, pieces), together, atol=1e-5, rtol=1e-4)


def gradients(
    model: Any, row: dict[str, torch.Tensor], pieces: list[slice]
) -> dict[str, torch.Tensor]:
    """Gradient of the summed loss over pieces of a row, each in a forward pass of its own."""
    model.zero_grad()
    for piece in pieces:
        inputs = {name: values[None, piece] for name, values in row.items()}
        if (inputs["labels"][:, 1:] != IGNORED).any():
            model(**inputs, num_items_in_batch=1).loss.backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def test_rows_of_padding_fill_the_last_step_and_teach_nothing() -> None:
    samples = EncodedSamples.of([RIGHT, WRONG] * 20, CODEC)
    rows, filled = (PackedRows(samples, 128, pad_id=0, seed=0, multiple=m) for m in (1, 16))
    assert len(filled) == 16 > len(rows) == filled.filled
    for index in range(16):
        if index < len(rows):
            assert torch.equal(rows[index]["input_ids"], filled[index]["input_ids"])
        else:
            assert (filled[index]["labels"] == IGNORED).all()


def test_a_tokenizer_that_changes_steps_is_refused() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = {piece: index for index, piece in enumerate(["<end>", "\u2581", *"0123456789+=\n"])}
    backend = Tokenizer(models.BPE(pieces, []))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    tokenizer.add_special_tokens({"additional_special_tokens": [Grammar().marker]})
    codec = TraceCodec.of(Grammar(), tokenizer)
    for steps in (["1+1=2", "2+1=3"], ["1+1=2"]):  # Of single steps alone it does not show.
        with pytest.raises(ValueError, match="does not give back"):
            check_round_trip([Sample(prompt="1", steps=steps)], codec)
    check_round_trip([RIGHT, WRONG], CODEC)
