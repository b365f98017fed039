#!/usr/bin/env bash
# Usage: apt-install.sh PACKAGE... Installs them where root asks and apt-get is there; fails silently otherwise.
# Their services are neither started nor enabled: what runs here is started privately, by the launcher or a test.
set -euo pipefail

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    exit 1
fi

policy=/usr/sbin/policy-rc.d # asked by packages before they start a service; 101 is "no"
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
lock=(-o DPkg::Lock::Timeout=120)
echo "installing $*"
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${lock[@]}" "$@" >/dev/null
if command -v systemctl >/dev/null; then
    systemctl disable "$@" >/dev/null 2>&1 || true # nor at the next boot
fi
