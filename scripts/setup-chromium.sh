#!/usr/bin/env bash
# Chromium by apt-get, where it is missing: tests of the console open its pages in it. Nothing that `make up` or `make demo` needs.
set -euo pipefail

command -v chromium >/dev/null || "$(dirname "${BASH_SOURCE[0]}")/apt-install.sh" chromium || {
    echo "chromium not found: install it (sudo apt-get install chromium)" >&2
    exit 1
}
