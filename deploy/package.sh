#!/usr/bin/env bash
# `make package`: build wheel and sdist, check them, and install the wheel into a bare environment.
#
#   deploy/package.sh PYTHON TOOLS
#
# TOOLS is an environment of its own with `build`, `twine` and what requirements-build.lock names. The
# build is not isolated: an isolated one would fetch its packages without the lock's hashes.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$1
tools=$2

rm -rf dist
"$tools/bin/python" -m build --no-isolation --quiet --outdir dist .
"$tools/bin/python" -m twine check --strict dist/*

bare=$(mktemp -d)
trap 'rm -rf "$bare"' EXIT
"$python" -m venv "$bare"
for made in dist/*; do
  "$bare/bin/python" -m pip install --quiet --disable-pip-version-check --force-reinstall "$made"
  (cd "$bare" && bin/stepback --help >/dev/null && bin/python -c "
from importlib.metadata import distribution
from stepback_client import Client
assert distribution('stepback-llm').version
Client('http://127.0.0.1:1').close()")
done
echo "$(ls dist): installed into a bare environment, and its command runs"
