#!/usr/bin/env bash
# Runs uv in the version that the lock file, the image and the bill of materials were made with: the one on the PATH if it is
# that, or one brought by pip into .run/uv.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

version=0.13.9
own=$root/.run/uv/bin/uv

is_pinned() {
    [ "$("$1" --version 2>/dev/null | cut -d ' ' -f 2)" = "$version" ]
}

export UV_PYTHON_DOWNLOADS=never
if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
    export UV_SYSTEM_CERTS=true # the machine's own authorities, as pip and curl have them
fi

if is_pinned uv; then
    exec uv "$@"
fi
if ! is_pinned "$own"; then
    # --target: neither a virtual environment nor a change to the system's own packages (PEP 668).
    PIP_ROOT_USER_ACTION=ignore "${PYTHON:-python3}" -m pip install --quiet --upgrade --target "$root/.run/uv" "uv==$version" >&2 || {
        if command -v uv >/dev/null; then # the lock file's hashes hold for any of them
            echo "pip could not bring uv $version: $(uv --version) is used" >&2
            exec uv "$@"
        fi
        echo "uv $version is missing and pip could not bring it: install python3-pip, or uv $version (https://docs.astral.sh/uv)" >&2
        exit 1
    }
fi
exec "$own" "$@"
