"""What the head of every page has: whether the servers respond, and whether the page is live."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from dispatch.gateway.ops.pulse import Reading

#: The checks that are shown, and their names.
_CHECKS = {"broker": "RabbitMQ", "store": "Redis"}


class HealthTopic:
    """The texts of two topics."""

    @staticmethod
    def shown(reading: Reading, _scopes: frozenset[str]) -> Mapping[str, Any]:
        """What the template needs."""
        return {"checks": [(title, reading.failures.get(name)) for name, title in _CHECKS.items()]}

    @staticmethod
    def version(reading: Reading, _scopes: frozenset[str]) -> str:
        """Changes when there are other tasks, or tasks are in other states: lists then load themselves again.

        Of many tasks counts are taken seldom; what has ended and what waits in queues is known at each reading.
        """
        counts, queues = reading.counts.value, reading.queues.value or ()
        counted = (counts.by_type, counts.dead_letters) if counts else reading.number
        seen = (counted, reading.recent.value, [(queue.name, queue.total) for queue in queues])
        return hashlib.sha256(repr(seen).encode()).hexdigest()[:12]
