#!/usr/bin/env bash
# RabbitMQ and Redis by apt-get, where they are missing; `make up` starts private ones.
set -euo pipefail

has_rabbitmq() { # and Erlang, as the launcher looks for them
    command -v erl >/dev/null && command -v epmd >/dev/null || return 1
    [ -n "${RABBITMQ_HOME:-}" ] || compgen -G '/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server' >/dev/null
}

missing=()
[ -n "${DISPATCH_BROKER_URL:-}" ] || has_rabbitmq || missing+=(rabbitmq-server)
[ -n "${DISPATCH_REDIS_URL:-}" ] || command -v redis-server >/dev/null || missing+=(redis-server)
[ ${#missing[@]} -eq 0 ] && exit 0

bash "$(dirname "${BASH_SOURCE[0]}")/apt-install.sh" "${missing[@]}" || {
    echo "${missing[*]} not found: install it (Debian, Ubuntu: sudo apt-get install ${missing[*]}), or set the URLs of running servers" \
        "in DISPATCH_BROKER_URL, DISPATCH_MANAGEMENT_URL and DISPATCH_REDIS_URL" >&2
    exit 1
}
