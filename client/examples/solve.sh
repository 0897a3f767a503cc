#!/usr/bin/env bash
# The same over plain HTTP: client/examples/solve.sh [URL]
set -euo pipefail
curl --silent --show-error --fail-with-body "${1:-http://127.0.0.1:8000}/solve" \
  --header 'Content-Type: application/json' \
  --data '{"task": "countdown", "problem": {"numbers": [4, 16, 25, 82], "target": 95}}'
