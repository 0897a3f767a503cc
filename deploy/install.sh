#!/usr/bin/env bash
# Makes a virtual environment with exactly what requirements.lock names, and this project in it.
#
#   deploy/install.sh PYTHON FOLDER
#
# STEPBACK_TORCH_INDEX   where pip also looks, for the CPU build of torch (PyTorch's CPU index)
set -euo pipefail

python=$1
folder=$2

"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' ||
  { echo "stepback needs Python 3.11 to 3.14; set PYTHON" >&2; exit 1; }
# A venv without pip is one whose making was interrupted.
"$folder/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$folder"

# --no-deps: the lock is whole, and resolving would bring torchvision, torchaudio and torchcodec,
# whose CUDA builds break a CPU torch.
"$folder/bin/python" -m pip install --quiet --no-deps --disable-pip-version-check \
  ${STEPBACK_TORCH_INDEX:+--extra-index-url "$STEPBACK_TORCH_INDEX"} -r requirements.lock || {
  echo "The install failed. If torch was not found: set STEPBACK_TORCH_INDEX to the address of" \
    "PyTorch's index of CPU builds, and run the command again." >&2
  exit 1
}
"$folder/bin/python" -m pip install --quiet --no-deps --no-build-isolation \
  --disable-pip-version-check --editable .
