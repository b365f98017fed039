"""Which of the commands that are broadcast to ``celery.pidbox`` a worker carries out.

Each client that may publish there reaches every worker: `celery inspect`, Flower, and with the same rights `autoscale
0,0` or `add_consumer robot.task.dlq`. So a worker hands Celery's handlers out only for commands that change nothing, and
for those that ``DISPATCH_CONTROL_COMMANDS`` adds. The sender also names where the reply goes and which workers are meant:
the worker publishes to no other exchange than that of replies, and matches no regular expression of a sender's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from kombu.pidbox import Node

from dispatch.telemetry import logger

log = logger(__name__)

#: Commands that change nothing. Flower and `celery events` broadcast `enable_events` and `heartbeat`. Left out of Celery's
#: own list of inspect commands: `hello` (merges what it is sent), `objgraph` (writes a file), `memsample`, `memdump`.
READ_ONLY = frozenset({
    "active", "active_queues", "clock", "conf", "enable_events", "heartbeat", "ping", "query_task", "registered", "report",
    "reserved", "revoked", "scheduled", "stats",
})  # fmt: skip

#: The setting that adds commands.
SETTING = "DISPATCH_CONTROL_COMMANDS"

#: Commands that no setting allows: a run's `DeliveryRequest.revoked` is always False, so their answer would be OK, and their effect none.
NO_EFFECT = frozenset({"revoke", "revoke_by_stamped_headers"})

#: What to use instead of a refused command, where there is something.
_INSTEAD = {
    "revoke": "Celery's would ack and lose an accepted task; a dead letter is discarded by `celery -A celery_app dlq discard`",
    "revoke_by_stamped_headers": "Celery's would ack and lose accepted tasks",
    "terminate": "it uses up an attempt; a task type's time limit ends its runs",
    "shutdown": "send SIGTERM to the worker",
    "autoscale": "restart the workers with another --autoscale",
    "rate_limit": "Celery would hold the waiting tasks in a worker's memory; a handler raises Throttled",
    "add_consumer": "workers consume robot.task.q; dead letters are redriven by `celery -A celery_app dlq redrive`",
}

#: What a control message has; a sender's other fields reach nothing.
_FIELDS = ("method", "arguments", "destination", "pattern", "matcher", "reply_to", "ticket")

#: The range of a sender's logical clock, beyond which a worker's own could not be sent any more.
_CLOCK = range(2**53)

#: Refusals that a process logs at most, and characters of a name in them.
_MOST_LOGGED, _MAX_NAME = 1_000, 100

#: Characters of a pattern of workers' names: Python reads one of 15,000 brackets for 12 s.
_MAX_PATTERN = 255

#: Characters of a routing key, by the protocol.
_MAX_KEY = 255

_PASSWORD = re.compile(r"(://[^/@\s:]*:)[^/@\s]*(@)")


class ControlNode(Node):
    """A worker's end of the control queue, with the handlers of allowed commands only."""

    def __init__(
        self, hostname: str, state: Any = None, channel: Any = None, handlers: Any = None, mailbox: Any = None
    ) -> None:
        extra = state.app.dispatch_settings.control_commands
        super().__init__(hostname, state, channel, allowed(handlers or {}, extra), mailbox)
        self._logged: set[tuple[str, str]] = set()

    def handle_message(self, body: Any, message: Any = None) -> Any:
        """Carry a command out, if it is meant for this worker; what is no control message is logged and dropped."""
        problem = fault(body, self.mailbox.reply_exchange.name)
        if problem:
            log.warning("control message ignored", reason=problem)
            return None
        if message is not None and not _is_clock(message.headers.get("clock")):
            message.headers["clock"] = 0
        return super().handle_message({name: body.get(name) for name in _FIELDS}, message)

    def dispatch(
        self, method: str, arguments: Any = None, reply_to: Any = None, ticket: Any = None, **options: Any
    ) -> Any:
        """Call a command's handler, or answer that it is refused."""
        if method in self.handlers:
            return super().dispatch(method, arguments, reply_to, ticket, **options)
        self._log(method, reply_to)
        reply = {"error": refusal(method)}
        if reply_to:
            self.reply({self.hostname: reply}, reply_to["exchange"], reply_to["routing_key"], ticket)
        return reply

    def handle(self, method: str, arguments: Any = None) -> Any:
        """The handler's answer without passwords."""
        return masked(super().handle(method, arguments))

    def _log(self, method: str, reply_to: Any) -> None:
        """Once for each command and sender: a sender must not fill the log."""
        sender = reply_to["routing_key"] if reply_to else "none"
        entry = method[:_MAX_NAME], sender
        if entry not in self._logged and len(self._logged) < _MOST_LOGGED:
            self._logged.add(entry)
            log.warning("control command refused", command=entry[0], reply_to=sender, setting=SETTING)


def allowed(handlers: Mapping[str, Any], extra: Iterable[str]) -> dict[str, Any]:
    """The handlers that messages may reach."""
    names = READ_ONLY.union(extra)
    return {name: handler for name, handler in handlers.items() if name in names}


def refusal(method: str) -> str:
    """Why a command is refused, and what to use."""
    name = method[:_MAX_NAME]
    instead = f": {_INSTEAD[name]}" if name in _INSTEAD else ""
    never = ", which can't name this one" if name in NO_EFFECT else ""
    return (
        f"{name} is refused{instead}. Workers carry out commands that only read, and those that {SETTING} names{never}."
    )


def fault(body: Any, reply_exchange: str) -> str | None:
    """What is wrong with a control message. Pure.

    Args:
        body: decoded.
        reply_exchange: the only exchange that a reply may go to.
    """
    if not isinstance(body, dict) or not isinstance(body.get("method"), str):
        return "it has no method"
    if not isinstance(body.get("arguments"), dict | None):
        return "its arguments are no object"
    if not _is_list_of_text(body.get("destination")):
        return "its destination is no list of worker names"
    pattern = body.get("pattern") or ""
    if body.get("matcher") not in (None, "glob") or not isinstance(pattern, str) or len(pattern) > _MAX_PATTERN:
        return "its pattern is no glob"
    if not isinstance(body.get("ticket"), str | None):
        return "its ticket is no text"
    return _fault_of_address(body.get("reply_to"), reply_exchange)


def _fault_of_address(address: Any, exchange: str) -> str | None:
    if not address:
        return None
    if not isinstance(address, dict) or address.get("exchange") != exchange:
        return f"its reply would not go to the exchange {exchange}"
    key = address.get("routing_key")
    if not isinstance(key, str) or len(key.encode()) > _MAX_KEY:
        return "its reply's routing key is none"
    return None


def _is_list_of_text(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(each, str) for each in value))


def _is_clock(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in _CLOCK


def masked(answer: Any) -> Any:
    """A handler's answer without the passwords of URLs in it. Pure."""
    if isinstance(answer, str):
        return _PASSWORD.sub(r"\1**\2", answer)
    if isinstance(answer, Mapping):
        return {name: masked(value) for name, value in answer.items()}
    if isinstance(answer, list | tuple):
        return [masked(value) for value in answer]
    return answer
