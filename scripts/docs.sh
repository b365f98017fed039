#!/usr/bin/env bash
# The documentation as a site, into dist/site; a warning is an error. mkdocs has an environment of its own, .run/docs-venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export UV_PYTHON_DOWNLOADS=never UV_PYTHON_PREFERENCE=system UV_PROJECT_ENVIRONMENT=.run/docs-venv
scripts/uv.sh sync --locked --quiet --only-group docs
# --quiet would make mkdocs count no warnings. Material advertises another product unless it is told not to.
NO_MKDOCS_2_WARNING=1 .run/docs-venv/bin/mkdocs build --strict
echo "dist/site/index.html"
