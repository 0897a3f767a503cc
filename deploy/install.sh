#!/usr/bin/env bash
# Makes a virtual environment with exactly what requirements.lock names, and this project in it.
# A file whose hash is not in the lock is refused.
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
# whose CUDA builds break a CPU torch. --only-binary: a source distribution runs its own code to build,
# with packages that no lock names.
"$folder/bin/python" -m pip install --quiet --no-deps --require-hashes --only-binary :all: \
  --disable-pip-version-check \
  ${STEPBACK_TORCH_INDEX:+--extra-index-url "$STEPBACK_TORCH_INDEX"} -r requirements.lock || {
  echo "The install failed. If torch was not found: set STEPBACK_TORCH_INDEX to the address of" \
    "PyTorch's index of CPU builds, and run the command again. If a hash does not match: the index" \
    "serves another file than the one that requirements.lock was made with; do not install it." >&2
  exit 1
}
# Apart from the lock: a folder has no hash.
"$folder/bin/python" -m pip install --quiet --no-deps --no-build-isolation \
  --disable-pip-version-check --editable .
