#!/usr/bin/env bash
# What a release consists of, from uv.lock alone (no network): a bill of materials (CycloneDX 1.5), the packages with
# their hashes for `pip install --require-hashes`, and the digests of both. Into dist/, or the directory given.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=${1:-dist}
mkdir -p "$out"
export_as() {
    scripts/uv.sh export --offline --locked --no-dev --quiet --preview-features sbom-export --format "$1" "${@:3}" --output-file "$out/$2" >/dev/null
}

export_as cyclonedx1.5 sbom.cdx.json
export_as requirements.txt requirements.txt --no-emit-project --no-header
(cd "$out" && sha256sum sbom.cdx.json requirements.txt >SHA256SUMS)
echo "$out/sbom.cdx.json, $out/requirements.txt, $out/SHA256SUMS"
