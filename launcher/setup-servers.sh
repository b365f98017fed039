#!/usr/bin/env bash
# RabbitMQ and Redis by apt-get, where they are missing; `make up` starts private ones.
set -euo pipefail

has_rabbitmq() {
    [ -n "${RABBITMQ_HOME:-}" ] || compgen -G '/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server' >/dev/null
}

missing=()
[ -n "${DISPATCH_BROKER_URL:-}" ] || has_rabbitmq || missing+=(rabbitmq-server)
[ -n "${DISPATCH_REDIS_URL:-}" ] || command -v redis-server >/dev/null || missing+=(redis-server)
[ ${#missing[@]} -eq 0 ] && exit 0

bash "$(dirname "${BASH_SOURCE[0]}")/apt-install.sh" "${missing[@]}" || {
    echo "${missing[*]} not found: install it (sudo apt-get install ${missing[*]}), or use Docker: docker compose up" >&2
    exit 1
}
