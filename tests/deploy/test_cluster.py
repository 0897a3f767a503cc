"""Manifests of clusters: KubeRay's and Kubeflow's manifests and Slurm's script."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from stepback_client.batch.command import batch_parser
from tests.conftest import ROOT
from tests.deploy.cluster import (
    NODES,
    RAY_JOB,
    SLURM_SCRIPT,
    TRAIN_JOB,
    check,
    check_pod,
    ray_pods,
    read_manifest,
    slurm_environment,
    train_pod,
)

DOCKERFILE = (ROOT / "deploy/cluster.Dockerfile").read_text()
GPU = "nvidia.com/gpu"


def pods() -> list[dict[str, Any]]:
    return [*ray_pods(read_manifest(RAY_JOB)), train_pod(read_manifest(TRAIN_JOB))]


@pytest.mark.parametrize("path", [RAY_JOB, TRAIN_JOB], ids=lambda path: path.stem)
def test_a_manifest_is_what_its_kind_takes(path: Path) -> None:
    check(read_manifest(path))


def test_every_pod_is_valid_and_confined() -> None:
    for pod in pods():
        check_pod(pod)
        assert pod["securityContext"]["runAsNonRoot"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        [container] = pod["containers"]
        assert container["image"] == "stepback-llm/cluster:0.2.0"
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def _misspell_field(job: dict[str, Any]) -> None:
    job["spec"]["shutdownAfterFinish"] = True


def _number_in_ray_parameters(job: dict[str, Any]) -> None:
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


def _worker_without_name(job: dict[str, Any]) -> None:
    del job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["groupName"]


@pytest.mark.parametrize("harm", [_misspell_field, _number_in_ray_parameters, _worker_without_name])
def test_the_schema_of_ray_notices(harm: Callable[[dict[str, Any]], None]) -> None:
    manifest = read_manifest(RAY_JOB)
    harm(manifest)
    with pytest.raises(jsonschema.ValidationError):
        check(manifest)


def _no_runtime(job: dict[str, Any]) -> None:
    del job["spec"]["runtimeRef"]


def _number_in_command(job: dict[str, Any]) -> None:
    job["spec"]["trainer"]["command"].append(16)


def _field_that_no_patch_has(job: dict[str, Any]) -> None:
    patch = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]
    patch["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["hostNetwork"] = True


@pytest.mark.parametrize("harm", [_no_runtime, _number_in_command, _field_that_no_patch_has])
def test_the_schema_of_kubeflow_notices(harm: Callable[[dict[str, Any]], None]) -> None:
    manifest = read_manifest(TRAIN_JOB)
    harm(manifest)
    with pytest.raises(jsonschema.ValidationError):
        check(manifest)


def test_kubernetes_schema_notices_a_misspelt_field_of_a_pod() -> None:
    for pod in pods():
        pod["containers"][0]["imagePolicy"] = "Always"
        with pytest.raises(kubernetes_validate.ValidationError):
            check_pod(pod)


def test_the_clusters_gpus_are_what_its_actors_take() -> None:
    spec = read_manifest(RAY_JOB)["spec"]
    words = shlex.split(spec["entrypoint"])
    assert words[:2] == ["stepback", "batch"]
    options = batch_parser().parse_args(words[2:])
    assert options.on == "ray"
    [head], [worker] = (pod["containers"] for pod in ray_pods(read_manifest(RAY_JOB)))
    settings = {one["name"]: one["value"] for one in head["env"]}
    assert settings["STEPBACK_DEVICE"] == "cuda"
    [group] = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
    gpus = group["replicas"] * worker["resources"]["limits"][GPU]
    assert options.actors * int(settings["STEPBACK_TENSOR_PARALLEL"]) == gpus
    mounts = [
        {mount["name"]: mount["mountPath"] for mount in one["volumeMounts"]}
        for one in (head, worker)
    ]
    assert mounts[0] == mounts[1], "--model is one path on every node"
    assert str(options.model).startswith(mounts[0]["data"])


def test_the_trainings_processes_are_its_gpus() -> None:
    trainer = read_manifest(TRAIN_JOB)["spec"]["trainer"]
    per_node = trainer["resourcesPerNode"]["limits"][GPU]
    assert trainer["numProcPerNode"] == per_node
    command = trainer["command"]
    total = command[command.index("--num_processes") + 1]
    assert int(total) == trainer["numNodes"] * per_node
    header = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", SLURM_SCRIPT.read_text(), re.M))
    assert int(header["nodes"]) == trainer["numNodes"] == NODES
    assert int(header["gpus-per-node"]) == per_node
    assert header["ntasks-per-node"] == "1"


def test_slurm_and_kubeflow_run_one_command(tmp_path: Path) -> None:
    """Each node's, once both have filled in what their cluster says."""
    said = tmp_path / "accelerate"
    environment = slurm_environment(
        tmp_path / "slurm",
        RECIPE="/data/recipe.toml",
        SAMPLES="/data/samples.jsonl",
        RUN="/data/run",
        ACCELERATE_CONFIG="/recipes/accelerate/fsdp.yaml",
        SLURM_GPUS_ON_NODE="8",
        SLURM_JOB_ID="40007",
    )
    launcher = tmp_path / "slurm/accelerate"
    launcher.write_text(f'#!/bin/sh\nprintf "%s\\n" accelerate "$@" > {said}."$SLURM_NODEID"\n')
    launcher.chmod(0o755)
    subprocess.run(["bash", SLURM_SCRIPT], env=environment, check=True, timeout=60)
    for node in range(NODES):
        slurm = Path(f"{said}.{node}").read_text().splitlines()
        filled = {
            "$(PET_NNODES)": str(NODES),
            "$(PET_NODE_RANK)": str(node),
            "$(PET_MASTER_ADDR)": "127.0.0.1",
            "$(PET_MASTER_PORT)": "20007",
        }
        command = read_manifest(TRAIN_JOB)["spec"]["trainer"]["command"]
        kubeflow = [filled.get(word, word) for word in command]
        assert slurm[:2] == kubeflow[:2] == ["accelerate", "launch"]
        assert slurm == kubeflow


def test_slurms_script_says_what_it_lacks() -> None:
    done = subprocess.run(
        ["bash", SLURM_SCRIPT],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "RECIPE: the path of a recipe" in done.stderr


def test_slurms_script_is_sound_shell() -> None:
    subprocess.run(["bash", "-n", SLURM_SCRIPT], check=True, timeout=60)
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, SLURM_SCRIPT], check=True, timeout=60)


def test_the_image_has_the_versions_that_were_tested() -> None:
    locks = (ROOT / "requirements.lock").read_text() + (
        ROOT / "tests/on_ray/requirements.txt"
    ).read_text()
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)", locks, re.M))
    found = re.findall(r"(ray|accelerate|tensorboard)(?:\[[a-z,]+\])?==([\w.]+)", DOCKERFILE)
    assert dict(found) == {name: pinned[name] for name in ("ray", "accelerate", "tensorboard")}
    assert read_manifest(RAY_JOB)["spec"]["rayClusterSpec"]["rayVersion"] == pinned["ray"]
    [config] = re.findall(r"/recipes/accelerate/(\S+\.yaml)", TRAIN_JOB.read_text())
    assert (ROOT / "training/recipes/accelerate" / config).is_file()
    assert "COPY training/recipes/accelerate /recipes/accelerate" in DOCKERFILE
