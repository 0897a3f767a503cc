"""Every process that runs a model asks for AMX first, and an engine that dies at it says so.

A probe takes the place of torch's function, as a vLLM plug-in that is loaded before ours.
"""

import json
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from stepback_server.checkpoint import Checkpoint
from stepback_server.commands.engine import server_flags
from stepback_server.settings import Settings
from tests import warm
from tests.conftest import CHECKPOINT, free_port, wait_until_ok
from tests.process_tree import title

_PROBE = """
import multiprocessing, os, pathlib, signal, sys, torch

def ask():
    name = multiprocessing.current_process().name
    pathlib.Path(os.environ["PROBE_FOLDER"], str(os.getpid())).write_text(name)
    if os.environ["PROBE_ENDS"] == "SIGILL" and name == "EngineCore":
        print("the probe ends this core", file=sys.stderr, flush=True)
        os.kill(os.getpid(), 4)

def install():
    torch.cpu._init_amx = ask
"""
_ENTRY_POINT = "[vllm.general_plugins]\na_probe = probe:install\n"


@pytest.fixture
def probe(tmp_path: Path) -> dict[str, str]:
    """The environment that loads the probe."""
    package = tmp_path / "package"
    information = package / "a_probe-1.dist-info"
    information.mkdir(parents=True)
    (package / "probe.py").write_text(_PROBE)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: a-probe\nVersion: 1\n")
    (information / "entry_points.txt").write_text(_ENTRY_POINT)
    (tmp_path / "asked").mkdir()
    return os.environ | {
        "PYTHONPATH": str(package),
        "PROBE_FOLDER": str(tmp_path / "asked"),
        "PROBE_ENDS": "",
        "STEPBACK_DATABASE_URL": f"sqlite:///{tmp_path}/jobs.db",
    }


def run(log: Path, environment: Mapping[str, str], *command: str) -> warm.Running:
    with log.open("w") as output:
        return warm.start(*command, env=environment, stdout=output, stderr=output)


def small_model(folder: Path) -> Path:
    """The bundled tokenizer over random weights of hidden size 64."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shutil.copytree(CHECKPOINT, folder)
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        dtype="bfloat16",
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    return folder


@pytest.mark.timeout(900)
def test_the_process_that_runs_a_small_model_asks_for_amx_before_it_serves(
    tmp_path: Path, probe: dict[str, str]
) -> None:
    log, port = tmp_path / "log.txt", free_port()
    checkpoint = Checkpoint.open(small_model(tmp_path / "model"))
    flags = server_flags(Settings.read({}, ["--port", str(port)]), checkpoint)
    process = run(log, probe, "tests.server.engine.vllm_server", *flags)
    try:
        wait_until_ok(f"http://127.0.0.1:{port}/health", process, log)
        asked = {int(each.name) for each in (tmp_path / "asked").iterdir()}
        cores = {pid for pid in asked if "EngineCore" in title(pid)}
        assert len(cores) == 1, log.read_text()[-3000:]
    finally:
        process.terminate()
        process.wait(timeout=300)


@pytest.mark.timeout(900)
def test_an_embedded_engine_that_dies_thrice_by_a_signal_ends_the_controller_by_its_name(
    tmp_path: Path, probe: dict[str, str]
) -> None:
    log, port = tmp_path / "log.txt", free_port()
    environment = probe | {"PROBE_ENDS": "SIGILL", "STEPBACK_PORT": str(port)}
    process = run(log, environment, warm.STEPBACK, "serve")
    try:
        assert process.wait(timeout=500) == 1
    finally:
        process.kill()
        process.wait()
    written = log.read_text()
    [line] = [each for each in written.splitlines() if "none will come" in each]
    assert signal.SIGILL.name in line and "the probe ends this core" in line
    # Of the process that runs the model, and of no other than those three.
    cores = [each for each in (tmp_path / "asked").iterdir() if each.read_text() == "EngineCore"]
    assert len(cores) == 3
    assert written.count("the probe ends this core") > 3, "the lines are passed on as well"
