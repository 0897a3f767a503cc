"""Environment of vLLM's processes."""

import os
import subprocess
import sys

import pytest

_TELL = """
import os
from stepback_server.engine.vllm_environment import prepare_environment
prepare_environment(cpu={cpu})
print(os.environ["VLLM_WORKER_MULTIPROC_METHOD"], os.environ["VLLM_NO_USAGE_STATS"])
print(os.environ.get("VLLM_PORT"))
"""


@pytest.mark.parametrize("cpu", [True, False])
def test_the_core_is_spawned_whatever_is_set_and_other_variables_are_left_alone(cpu: bool) -> None:
    told = subprocess.run(
        [sys.executable, "-c", _TELL.format(cpu=cpu)],
        env=os.environ
        | {
            "VLLM_WORKER_MULTIPROC_METHOD": "fork",
            "VLLM_NO_USAGE_STATS": "0",
            "VLLM_PORT": "5000",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == ["spawn", "0", "5000"]


def test_the_address_of_a_service_named_vllm_is_no_port_of_vllms() -> None:
    told = subprocess.run(
        [sys.executable, "-c", _TELL.format(cpu=True)],
        env=os.environ | {"VLLM_PORT": "tcp://10.0.0.1:80"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split()[-1] == "None"
