"""The context that is served, and the settings of the engine: what fits, and what is refused."""

import asyncio
import json
import os
import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from stepback_core.errors import InvalidInput
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.context import cache_bytes_per_token, with_context
from stepback_server.engine.cpu_dtype import cpu_dtype
from stepback_server.engine.vllm_environment import threads_for
from stepback_server.engine.vllm_options import as_flags, engine_options
from stepback_server.local import opened
from stepback_server.setting_values import in_our_words
from stepback_server.settings import Settings
from tests.conftest import CHECKPOINT
from tests.server.search.scripted import ScriptedEngine


def read(**settings: str) -> Settings:
    return Settings.read({f"STEPBACK_{name.upper()}": value for name, value in settings.items()})


@pytest.fixture
def long_model(tmp_path: Path) -> Checkpoint:
    """The bundled checkpoint, as one of 131,072 positions and of a token's 1,280 bytes of cache."""
    folder = shutil.copytree(CHECKPOINT, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 131_072}))
    return Checkpoint.open(folder)


def test_a_model_of_131072_positions_is_served_with_what_the_cache_holds(
    long_model: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    served = with_context(long_model, read(kv_cache_mib="64", dtype="bfloat16"))
    assert 1024 < served.context_tokens < 131_072 and served.context_tokens % 32 == 0
    assert "131072" in caplog.text and str(served.context_tokens) in caplog.text
    assert "STEPBACK_CONTEXT_TOKENS" in caplog.text
    twice = with_context(long_model, read(kv_cache_mib="128", dtype="bfloat16")).context_tokens
    assert twice == pytest.approx(2 * served.context_tokens, abs=64)
    half = with_context(long_model, read(kv_cache_mib="64", dtype="float32")).context_tokens
    assert half == pytest.approx(served.context_tokens / 2, abs=64)


def test_without_a_server_the_same_context_and_threads_are_taken(
    long_model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPBACK_KV_CACHE_MIB", "64")
    monkeypatch.setenv("STEPBACK_THREADS", "3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    end = long_model.codec.tokens.end_id

    async def context() -> int:
        engine = ScriptedEngine(lambda request, index: (end,))
        async with opened(long_model.folder, start_engine=lambda: engine) as solver:
            return solver.service.checkpoint.context_tokens

    assert (
        asyncio.run(context()) == with_context(long_model, read(kv_cache_mib="64")).context_tokens
    )
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_on_a_gpu_a_context_is_no_longer_than_traces_are(long_model: Checkpoint) -> None:
    assert with_context(long_model, read(device="cuda")).context_tokens == 32_768
    chosen = read(device="cuda", context_tokens="131072")
    assert with_context(long_model, chosen).context_tokens == 131_072


def test_a_short_context_is_served_whole_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    assert with_context(Checkpoint.open(CHECKPOINT), read()).context_tokens == 256
    assert not caplog.text


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"context_tokens": "200000"}, "only 131072 positions"),
        ({"context_tokens": "131072", "kv_cache_mib": "64"}, "STEPBACK_KV_CACHE_MIB"),
    ],
)
def test_a_context_that_cannot_be_served_is_refused(
    long_model: Checkpoint, settings: dict[str, str], named: str
) -> None:
    with pytest.raises(InvalidInput, match=named):
        with_context(long_model, read(**settings))


@pytest.mark.parametrize("missing", [{}, {"num_key_value_heads": None}])
def test_a_shape_in_the_words_of_gpt2_counts_the_same(missing: dict[str, None]) -> None:
    llama = {"num_attention_heads": 4, "num_hidden_layers": 3, "hidden_size": 64} | missing
    gpt2 = {"n_head": 4, "n_layer": 3, "n_embd": 64}
    settings = read(dtype="float32")
    sizes = {cache_bytes_per_token(config, settings) for config in (llama, gpt2)}
    assert sizes == {2 * 3 * 64 * 4}
    assert cache_bytes_per_token({"n_head": 4, "n_layer": 3}, settings) is None


def test_every_engine_setting_reaches_vllm_by_one_rule() -> None:
    settings = read(
        device="cuda",
        dtype="float16",
        gpu_memory_share="0.5",
        tensor_parallel="2",
        quantization="fp8",
        vllm_args='{"swap-space": 4, "speculative_config": {"method": "ngram"}, "seed": 7}',
    )
    options = engine_options(Path("m"), settings, context_tokens=64)
    flags = dict(pairwise(as_flags(options)))
    assert flags["--tensor-parallel-size"] == "2" and options["tensor_parallel_size"] == 2
    assert flags["--gpu-memory-utilization"] == "0.5" and flags["--dtype"] == "float16"
    assert flags["--quantization"] == "fp8" and flags["--swap-space"] == "4"
    assert json.loads(flags["--speculative-config"]) == {"method": "ngram"}


def test_on_a_cpu_other_arguments_come_last() -> None:
    options = engine_options(
        Path("m"), read(vllm_args='{"max_num_batched_tokens": 512}'), context_tokens=64
    )
    assert options["max_num_batched_tokens"] == 512 and options["dtype"] == cpu_dtype("auto")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        ('{"max-model-len": 4}', "STEPBACK_CONTEXT_TOKENS"),
        ('{"skip_tokenizer_init": false}', "the search depends on it"),
    ],
)
def test_arguments_that_have_a_setting_or_must_hold_are_refused(given: str, named: str) -> None:
    with pytest.raises(InvalidInput, match=f"STEPBACK_VLLM_ARGS.*{named}"):
        read(vllm_args=given)


@pytest.mark.parametrize(
    ("said", "settings"),
    [
        (
            "10.0 GiB KV cache is needed, more than the available memory. Try increasing "
            "`gpu_memory_utilization` or decreasing `max_model_len`.",
            {"STEPBACK_CONTEXT_TOKENS", "STEPBACK_GPU_MEMORY_SHARE"},
        ),
        ("explicitly set the `dtype` flag in CLI, for example: --dtype=half", {"STEPBACK_DTYPE"}),
        ("lower --max-model-len", {"STEPBACK_CONTEXT_TOKENS"}),
        ("the model has a bad port", set[str]()),
    ],
)
def test_an_error_of_vllms_is_told_with_our_settings(said: str, settings: set[str]) -> None:
    told = in_our_words(ValueError(said))
    assert told.startswith(said) and set(re.findall(r"STEPBACK_\w+", told)) == settings


@pytest.mark.parametrize("key", ["secret\n", "secret\r\n", "secret"])
def test_a_keys_line_end_is_no_part_of_it(key: str) -> None:
    found = read(engine_api_key=key).engine_api_key
    assert found is not None and found.get_secret_value() == "secret"


@pytest.mark.parametrize("key", ["sec ret", "secret ", "sécret", "sec\nret", "\tsecret"])
def test_a_key_that_no_header_takes_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(InvalidInput, match="STEPBACK_ENGINE_API_KEY") as refusal:
        read(engine_api_key=key)
    assert "ret" not in str(refusal.value)


def test_large_models_take_every_core(tmp_path: Path) -> None:
    assert threads_for(CHECKPOINT) == 1
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(1 << 30)  # A sparse file: no bytes on the disk.
    assert threads_for(tmp_path) >= 1
