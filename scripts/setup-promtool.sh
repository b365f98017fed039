#!/usr/bin/env bash
# promtool and Prometheus by apt-get, where they are missing: the tests of the alert rules and the dashboards run them.
# Nothing that `make up` or `make demo` needs.
set -euo pipefail

if command -v promtool >/dev/null && command -v prometheus >/dev/null; then
    exit 0
fi

"$(dirname "${BASH_SOURCE[0]}")/apt-install.sh" prometheus || {
    echo "promtool and prometheus not found: install them (sudo apt-get install prometheus)" >&2
    exit 1
}
