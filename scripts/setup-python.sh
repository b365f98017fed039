#!/usr/bin/env bash
# The locked packages into .venv. Uses the uv on the PATH, or brings one into .run/uv; never downloads a Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export UV_PYTHON_DOWNLOADS=never UV_PYTHON_PREFERENCE=system UV_PROJECT_ENVIRONMENT=.venv
if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
    export UV_SYSTEM_CERTS=true # the machine's own authorities, as pip and curl have them
fi

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

find_uv() {
    local found
    for found in uv .run/uv/bin/uv; do
        if "$found" --version >/dev/null 2>&1; then
            echo "$found"
            return
        fi
    done
    # --target: neither a virtual environment nor a change to the system's own packages (PEP 668).
    PIP_ROOT_USER_ACTION=ignore "$1" -m pip install --quiet --target .run/uv uv >&2 ||
        die "uv is missing and pip could not bring it: install python3-pip, or uv (https://docs.astral.sh/uv)"
    echo .run/uv/bin/uv
}

python=$(find_python)
uv=$(find_uv "$python")
if [ ! -x .venv/bin/python ]; then
    "$uv" venv --quiet --python "$python" .venv
fi
# Compiled here, once: where Python may not write bytecode, every process would compile every package again.
"$uv" sync --locked --quiet --compile-bytecode
