#!/usr/bin/env bash
# The locked packages into .venv, by the pinned uv (scripts/uv.sh); never downloads a Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export UV_PYTHON_DOWNLOADS=never UV_PYTHON_PREFERENCE=system UV_PROJECT_ENVIRONMENT=.venv

die() {
    echo "$1" >&2
    exit 1
}

find_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    die "Python 3.11 or later is needed; found: $(python3 --version 2>/dev/null || echo none)"
}

python=$(find_python)
export PYTHON=$python
if [ ! -x .venv/bin/python ]; then
    scripts/uv.sh venv --quiet --python "$python" .venv
fi
# Compiled here, once: where Python may not write bytecode, every process would compile every package again.
scripts/uv.sh sync --locked --quiet --compile-bytecode
