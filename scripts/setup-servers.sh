#!/usr/bin/env bash
# RabbitMQ and Redis by apt-get, where they are missing and root asks. Their own services are neither started
# nor enabled: make up starts private ones.
set -euo pipefail

has_rabbitmq() {
    [ -n "${RABBITMQ_HOME:-}" ] || compgen -G '/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server' >/dev/null
}

missing=()
[ -n "${DISPATCH_BROKER_URL:-}" ] || has_rabbitmq || missing+=(rabbitmq-server)
[ -n "${DISPATCH_REDIS_URL:-}" ] || command -v redis-server >/dev/null || missing+=(redis-server)
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "${missing[*]} not found: install it (sudo apt-get install ${missing[*]}), or use Docker: docker compose up" >&2
    exit 1
fi

policy=/usr/sbin/policy-rc.d # asked by packages before they start a service; 101 is "no"
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
echo "installing ${missing[*]}"
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
if command -v systemctl >/dev/null; then
    systemctl disable "${missing[@]}" >/dev/null 2>&1 || true # nor at the next boot
fi
