#!/usr/bin/env bash
# The launcher's, which an installed package has, too.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/../launcher/apt-install.sh" "$@"
