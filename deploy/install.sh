#!/usr/bin/env bash
# Makes a virtual environment with exactly what requirements.lock names, and this project in it.
#
#   deploy/install.sh PYTHON FOLDER
#
# STEPBACK_TORCH_INDEX   where pip also looks, for the CPU build of torch (PyTorch's CPU index)
set -euo pipefail

python=$1
folder=$2

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  { echo "stepback needs Python 3.11 or newer; set PYTHON" >&2; exit 1; }
[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"

# --no-deps: the lock is whole, and resolving would bring torchvision, torchaudio and torchcodec,
# whose CUDA builds break a CPU torch.
"$folder/bin/python" -m pip install --quiet --no-deps --disable-pip-version-check \
  ${STEPBACK_TORCH_INDEX:+--extra-index-url "$STEPBACK_TORCH_INDEX"} -r requirements.lock
"$folder/bin/python" -m pip install --quiet --no-deps --no-build-isolation \
  --disable-pip-version-check --editable .
