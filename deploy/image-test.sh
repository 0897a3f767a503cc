#!/usr/bin/env bash
# `make image-test`: build the images and run the compose stack for real.
#
#   deploy/image-test.sh PYTHON
#
# Takes the Docker engine that answers. Where none does, root on Debian gets a private one, stopped
# at the end (deploy/docker-engine.sh), and anybody else a test run that says it was skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! docker info >/dev/null 2>&1 && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  if exports=$(deploy/docker-engine.sh up); then
    trap 'deploy/docker-engine.sh down' EXIT
    eval "$exports"
  else
    echo "No Docker engine could be started here; see above." >&2
  fi
fi
"$1" -m pytest -m docker tests/deploy
