#!/usr/bin/env bash
# Wheel and sdist of robot-dispatch and of its client, without network: the locked hatchling builds them, the sdist first and the
# wheel from it. Two builds of one commit are the same bytes. Into dist/, or the directory given.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=${1:-dist}
python=${PYTHON:-.venv/bin/python}
mkdir -p "$out"
"$python" -m tools.versions >/dev/null

# The time in the archives: of the commit, or of one that the environment has already.
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 1767225600)
    export SOURCE_DATE_EPOCH
fi
for project in . clients/python; do
    "$python" -m build --no-isolation --outdir "$out" "$project" >/dev/null
done
(cd "$out" && sha256sum robot_dispatch* >SHA256SUMS.packages && cat SHA256SUMS.packages)
