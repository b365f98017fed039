#!/usr/bin/env bash
# What `make bench` needs beyond `make setup`: the peers in an environment of their own, .run/bench-venv, and wrk by apt-get.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export UV_PYTHON_DOWNLOADS=never UV_PYTHON_PREFERENCE=system UV_PROJECT_ENVIRONMENT=.run/bench-venv
scripts/uv.sh sync --locked --quiet --only-group peers --compile-bytecode

command -v wrk >/dev/null || scripts/apt-install.sh wrk || {
    echo "wrk not found: install it (sudo apt-get install wrk)" >&2
    exit 1
}
