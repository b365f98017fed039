#!/usr/bin/env bash
# systemd-analyze by apt-get, where it is missing: the tests of the systemd units run it. Nothing is started or enabled.
set -euo pipefail

command -v systemd-analyze >/dev/null && exit 0

"$(dirname "${BASH_SOURCE[0]}")/apt-install.sh" systemd || {
    echo "systemd-analyze not found: install it (sudo apt-get install systemd)" >&2
    exit 1
}
