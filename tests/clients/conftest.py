"""The real server as a child, and the surroundings in which clients look for nothing elsewhere."""

import os
from collections.abc import Iterator

import pytest
from tests.serving import ready_controller

MODEL = "multitask-10m"
LINE = "countdown:4,16,25,82=95"
SOLVED = "16-4=12\n25-12=13\n82+13=95"
"""Answer of the search to it, which draws no random numbers."""
PATIENCE = 300
"""Seconds that a client waits: a slow machine is no failure."""
OFFLINE = {
    # litellm asks GitHub for prices at its import; langsmith and lm-eval's hub look for accounts.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LANGSMITH_TRACING": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "OPENAI_API_KEY": "none",
}
os.environ.update(OFFLINE)


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a controller that is ready; STEPBACK_ENGINE_URLS saves it an engine."""
    with ready_controller(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture(scope="session")
def base_url(url: str) -> str:
    """The base URL of OpenAI's API there."""
    return f"{url}/v1"
