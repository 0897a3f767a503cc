"""The manifests of a cluster: what they run, and how Slurm's script runs here."""

import json
import os
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator

from tests.conftest import ROOT

KUBERNETES = "1.37"
RAY_JOB = ROOT / "deploy/ray/rayjob.yaml"
TRAIN_JOB = ROOT / "deploy/kubeflow/trainjob.yaml"
SLURM_SCRIPT = ROOT / "deploy/slurm/train.sbatch"
NODES = 2

# Slurm's own, as far as the script asks: every node is this machine, with one process.
_SCONTROL = "#!/bin/sh\necho 127.0.0.1\necho 127.0.0.2\n"
_SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
SLURM_NODEID=0 "$@" & main=$!
SLURM_NODEID=1 "$@" & other=$!
wait "$main" && wait "$other"
"""


def read_manifest(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def check(manifest: dict[str, Any]) -> None:
    """Hold a manifest against its kind's schema. Raises jsonschema's ValidationError."""
    schema = json.loads(
        (ROOT / f"tests/deploy/schemas/{manifest['kind'].lower()}.json").read_text()
    )
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(manifest)


def check_pod(spec: dict[str, Any]) -> None:
    """Hold a pod against Kubernetes' own schema."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def ray_pods(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = manifest["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def train_pod(manifest: dict[str, Any]) -> dict[str, Any]:
    """The pod of a node: the runtime's container, with what the manifest lays over it."""
    trainer = manifest["spec"]["trainer"]
    [patch] = manifest["spec"]["runtimePatches"]
    [job] = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]["template"]["spec"]
    [container] = spec["containers"]
    laid = {name: trainer[name] for name in ("image", "command")}
    laid["resources"] = trainer["resourcesPerNode"]
    return {**spec, "containers": [{**container, **laid}]}


def slurm_environment(folder: Path, **variables: str) -> dict[str, str]:
    """An environment in which Slurm's script runs its two nodes on this machine."""
    for name, text in (("scontrol", _SCONTROL), ("srun", _SRUN)):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    slurm = {
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": str(NODES),
        "SLURM_GPUS_ON_NODE": "1",
    }
    path = os.pathsep.join([str(folder), os.environ["PATH"]])
    return {**os.environ, **slurm, **variables, "PATH": path}
