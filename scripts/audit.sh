#!/usr/bin/env bash
# Known vulnerabilities of the locked packages, from the database OSV (https://osv.dev), which learns their names and versions.
# Exit code 0: none. 1: there are some. 2: nothing was checked. Further words are uv's, as --ignore ID.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

scripts/uv.sh audit --locked --no-dev --preview-features audit-command "$@"
case $? in
    0) echo "No known vulnerability in the locked packages." ;;
    1)
        echo "There are known vulnerabilities: update the packages (uv lock --upgrade-package NAME)." >&2
        exit 1
        ;;
    *)
        echo "NOTHING WAS CHECKED: the database of vulnerabilities can't be reached, or uv failed (above). This is no result." >&2
        exit 2
        ;;
esac
