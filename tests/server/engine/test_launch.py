"""Command line of `stepback engine`, and the settings that choose an engine."""

import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest

from stepback_core.errors import InvalidInput
from stepback_server.checkpoint import Checkpoint
from stepback_server.commands.engine import server_flags
from stepback_server.engine import vllm_dtype
from stepback_server.engine.handshake import ExpectedServer
from stepback_server.settings import Settings, flag_of
from tests.conftest import CHECKPOINT, SERVED

CPU_ONLY = ["--enforce-eager", "--no-enable-chunked-prefill", "--block-size"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_server_has_the_embedded_engines_arguments(device: str) -> None:
    settings = Settings.read({"STEPBACK_DEVICE": device, "STEPBACK_ENGINE_API_KEY": "secret"})
    flags = server_flags(settings, Checkpoint.open(CHECKPOINT))
    named = dict(pairwise(flags))
    assert named["--served-model-name"] == SERVED
    assert named["--max-model-len"] == "256" and named["--generation-config"] == "vllm"
    assert {"--skip-tokenizer-init", "--enable-prefix-caching", "--enable-scale-out"} <= set(flags)
    assert all((flag in flags) == (device == "cpu") for flag in CPU_ONLY)
    assert "secret" not in flags


@pytest.mark.parametrize(
    ("cuda", "recent", "dtype"),
    [(True, False, "float16"), (True, True, "auto"), (False, False, "auto")],
)
def test_a_gpu_without_bfloat16_computes_in_float16(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, recent: bool, dtype: str
) -> None:
    gpu = SimpleNamespace(is_cuda=lambda: cuda, has_device_capability=lambda _: recent)
    monkeypatch.setattr(vllm_dtype, "current_platform", gpu)
    assert vllm_dtype.supported_dtype("auto") == dtype
    assert vllm_dtype.supported_dtype("float32") == "float32"


def test_the_addresses_of_engines_are_read_and_their_key_is_never_shown() -> None:
    settings = Settings.read(
        {
            "STEPBACK_ENGINE_URLS": "http://a:8000/, https://b/prefix,http://a:8000",
            "STEPBACK_ENGINE_API_KEY": "secret",
        }
    )
    assert settings.engine_urls == ("http://a:8000", "https://b/prefix")
    assert Settings.read({"STEPBACK_ENGINE_URLS": ""}).engine_urls == ()
    expected = ExpectedServer(model="m", context_tokens=1, api_key="secret", connections=1)
    assert "secret" not in repr(settings) + repr(expected)
    assert expected.headers == {"Authorization": "Bearer secret"}


@pytest.mark.parametrize("secret", ["--engine-api-key", "--keys"])
def test_a_secret_has_no_flag(secret: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Settings.read({}, [secret, "word"])
    assert secret in capsys.readouterr().err
    assert flag_of(secret.removeprefix("--").replace("-", "_")) is None


@pytest.mark.parametrize("urls", ["ftp://a", "a:8000", "http://user:word@a", "http://a,b"])
def test_an_address_that_is_none_is_refused_by_name(urls: str) -> None:
    with pytest.raises(InvalidInput, match="STEPBACK_ENGINE_URLS"):
        Settings.read({"STEPBACK_ENGINE_URLS": urls})


def test_the_command_refuses_what_it_cannot_serve() -> None:
    stopped = subprocess.run(
        [sys.executable, "-m", "stepback_client.cli", "engine", "--model", "/nowhere"],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert stopped.returncode == 2
    assert stopped.stderr.startswith("stepback engine: /nowhere")
