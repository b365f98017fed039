#!/usr/bin/env bash
# promtool and Prometheus by apt-get, where they are missing and root asks: the tests of the alert rules and the
# dashboards run them. Nothing that `make up` or `make demo` needs; the service is neither started nor enabled.
set -euo pipefail

if command -v promtool >/dev/null && command -v prometheus >/dev/null; then
    exit 0
fi

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "promtool and prometheus not found: install them (sudo apt-get install prometheus)" >&2
    exit 1
fi

policy=/usr/sbin/policy-rc.d # asked by packages before they start a service; 101 is "no"
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
echo "installing prometheus"
apt-get update -qq
apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=120 prometheus >/dev/null
if command -v systemctl >/dev/null; then
    systemctl disable prometheus >/dev/null 2>&1 || true # nor at the next boot
fi
