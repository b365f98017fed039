"""Carries a schedule out, each fault on a thread of its own, and mends everything afterwards.

What a fault breaks it mends itself, and tries until that succeeds: a policy cannot be restored while RabbitMQ is
down from another fault. A fault that finds nothing to break (a process that is down already) is noted as missed.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import amqp
import httpx

from support.chaos.facts import Fault, Happened, Poison
from support.chaos.system import VHOST, Machine
from support.proxy import DOWN, UP
from support.waiting import eventually

#: What may go wrong when a server is down: then the fault is missed, or its mending is tried again.
_ERRORS = (OSError, KeyError, AssertionError, httpx.HTTPError, amqp.AMQPError, subprocess.SubprocessError)

#: Ready messages the work queue holds while it is "full".
_FULL = 3

_POLICY = f"/api/policies/{VHOST}/robot.task.q"

#: The DLX's queues: without both of them a dead letter has nowhere to go.
_DEAD_QUEUES = ("robot.task.dlq", "robot.task.dead.q")

_BOTH = {"up": (UP,), "down": (DOWN,), "both": (UP, DOWN)}


class Breaker:
    """Breaks a machine.

    Args:
        machine: what is broken.
        log: receives a line for each fault.
    """

    def __init__(self, machine: Machine, log: Callable[[str], None]) -> None:
        self._machine = machine
        self._log = log
        self._lock = threading.Lock()
        self._bindings = threading.Lock()
        self.happened: list[Happened] = []
        self.poison: list[Poison] = []
        self._stopped: set[int] = set()
        with machine.management() as api:
            self._policy = api.get(_POLICY).raise_for_status().json()
        self._kinds: dict[str, Callable[[Fault], contextlib.AbstractContextManager[None]]] = {
            "kill": self._kill, "kill-child": self._kill_child, "terminate": self._terminate, "stop": self._stop,
            "cut": self._cut, "refuse": self._refuse, "hold": self._hold, "delay": self._delay,
            "alarm": self._alarm, "full": self._full, "unroutable": self._unroutable, "poison": self._throw_poison,
        }  # fmt: skip

    def carry_out(self, schedule: Sequence[Fault], duration: float) -> None:
        """Carry a schedule out; returns when its time is over and the last fault is mended."""
        began = time.monotonic()
        threads = []
        pace = threading.Event()  # never set: waits until a fault's time has come
        for fault in schedule:
            pace.wait(max(0.0, began + fault.at - time.monotonic()))
            thread = threading.Thread(target=self._one, args=(fault, pace), name=f"fault-{fault.name}")
            thread.start()
            threads.append(thread)
        pace.wait(max(0.0, began + duration - time.monotonic()))
        for thread in threads:
            thread.join()
        self.mend()

    def mend(self) -> None:
        """Whatever is still broken: idempotent."""
        for proxy in self._machine.proxies.values():
            proxy.delay(0)
            proxy.release()
            proxy.admit()
        for pid in self._stopped:
            _signal(pid, signal.SIGCONT)
        for mend in (self._clear_alarm, self._restore_policy, self._bind):
            _insist(mend)

    def _one(self, fault: Fault, pace: threading.Event) -> None:
        began, missed = time.time(), ""
        self._log(f"{fault.at:6.1f} s  {fault.name} {fault.target} {fault.detail} {fault.seconds or ''}".rstrip())
        try:
            with self._kinds[fault.name](fault):
                pace.wait(fault.seconds)
        except _ERRORS as exc:
            missed = f"{type(exc).__name__}: {exc}"[:200]
            self._log(f"          missed: {fault.name} {fault.target}: {missed}")
        with self._lock:
            self.happened.append(Happened(fault, began, time.time(), missed))

    # --- processes -------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _kill(self, fault: Fault) -> Iterator[None]:
        os.kill(self._machine.pid(fault.target), signal.SIGKILL)
        yield

    @contextlib.contextmanager
    def _kill_child(self, fault: Fault) -> Iterator[None]:
        children = self._machine.children(fault.target)
        if not children:
            raise ProcessLookupError("it has no children now")
        for pid in children if fault.detail == "all" else children[-1:]:
            _signal(pid, signal.SIGKILL)
        yield

    @contextlib.contextmanager
    def _terminate(self, fault: Fault) -> Iterator[None]:
        os.kill(self._machine.pid(fault.target), signal.SIGTERM)
        yield

    @contextlib.contextmanager
    def _stop(self, fault: Fault) -> Iterator[None]:
        """Of a worker the main process only, so that its children run on while nothing renews their leases."""
        pids = [self._machine.pid(fault.target)]
        if fault.target == "gateway":
            pids += self._machine.children("gateway")
        self._stopped.update(pids)
        try:
            for pid in pids:  # a child may have ended since it was listed
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                _signal(pid, signal.SIGCONT)
            self._stopped.difference_update(pids)

    # --- wires -----------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _cut(self, fault: Fault) -> Iterator[None]:
        self._machine.proxies[fault.target].cut()
        yield

    @contextlib.contextmanager
    def _refuse(self, fault: Fault) -> Iterator[None]:
        proxy = self._machine.proxies[fault.target]
        proxy.refuse()
        proxy.cut()
        try:
            yield
        finally:
            proxy.admit()

    @contextlib.contextmanager
    def _hold(self, fault: Fault) -> Iterator[None]:
        proxy, directions = self._machine.proxies[fault.target], _BOTH[fault.detail]
        proxy.hold(*directions)
        try:
            yield
        finally:
            proxy.release(*directions)

    @contextlib.contextmanager
    def _delay(self, fault: Fault) -> Iterator[None]:
        proxy = self._machine.proxies[fault.target]
        proxy.delay(float(fault.detail))
        try:
            yield
        finally:
            proxy.delay(0)

    # --- the broker ------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _alarm(self, _: Fault) -> Iterator[None]:
        self._watermark("0.000001")
        try:
            yield
        finally:
            _insist(self._clear_alarm)

    def _clear_alarm(self) -> None:
        with self._machine.management() as api:
            alarmed = api.get("/api/nodes").raise_for_status().json()[0]["mem_alarm"]
        if alarmed:
            self._watermark("0.6")

    def _watermark(self, fraction: str) -> None:
        """RabbitMQ's own tool, in its own environment: no other way leads there."""
        pid = self._machine.pid("rabbitmq")
        pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
        environ = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        home = max(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*"))
        tool = str(Path(environ.get("RABBITMQ_HOME") or home) / "sbin" / "rabbitmqctl")
        command = [tool, "-n", environ["RABBITMQ_NODENAME"], "set_vm_memory_high_watermark", fraction]
        subprocess.run(command, env=environ, capture_output=True, timeout=30, check=True)

    @contextlib.contextmanager
    def _full(self, _: Fault) -> Iterator[None]:
        self._set_policy({**self._policy["definition"], "max-length": _FULL})
        try:
            yield
        finally:
            _insist(self._restore_policy)

    def _restore_policy(self) -> None:
        self._set_policy(self._policy["definition"])

    def _set_policy(self, definition: dict[str, object]) -> None:
        body = {name: self._policy[name] for name in ("pattern", "apply-to", "priority")}
        with self._machine.management() as api:
            api.put(_POLICY, json={**body, "definition": definition}).raise_for_status()

    @contextlib.contextmanager
    def _unroutable(self, _: Fault) -> Iterator[None]:
        with self._bindings, self._machine.channel() as channel:
            # The tap first, and bound last: a dead letter that came between the two would be in the tap alone.
            for queue in reversed(_DEAD_QUEUES):
                channel.queue_unbind(queue, "robot.task.dlx", "#")
        try:
            yield
        finally:
            _insist(self._bind)

    def _bind(self) -> None:
        # A stopped broker does what two of these faults sent at the same moment: one's bind between the other's unbinds.
        with self._bindings, self._machine.channel() as channel:
            for queue in _DEAD_QUEUES:
                channel.queue_bind(queue, "robot.task.dlx", "#")

    # --- poison ----------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _throw_poison(self, _: Fault) -> Iterator[None]:
        with self._machine.channel() as channel:
            for mark, reason, message in _poison():
                channel.basic_publish_confirm(message, "robot.task.topic", "robot.task.dispatch.echo")
                self.poison.append(Poison(mark, reason))
        yield


def _poison() -> Iterator[tuple[str, str, amqp.Message]]:
    """Messages that no handler can run, each with a mark of its own and the reason its dead letter must have."""
    recipes: tuple[tuple[str, dict[str, object], object, str], ...] = (
        ("undecodable", {"task": "echo", "id": "%"}, "no JSON {%", "application/json"),
        ("undecodable", {"task": "echo", "id": "%"}, "%", "application/x-python-serialize"),
        ("malformed", {}, ["%"], "application/json"),
        ("malformed", {"task": "echo", "id": 7}, ["%"], "application/json"),
        ("malformed", {"task": "echo", "id": "%"}, {"mark": "%"}, "application/json"),
        ("unknown-type", {"task": "no.such.type", "id": "%"}, [["%"], {}, {}], "application/json"),
    )
    for reason, headers, body, content_type in recipes:
        mark = f"poison-{secrets.token_hex(8)}"
        text = (body if isinstance(body, str) else json.dumps(body)).replace("%", mark)
        own = {name: mark if value == "%" else value for name, value in headers.items()}
        message = amqp.Message(
            text.encode(), content_type=content_type, content_encoding="utf-8", delivery_mode=2,
            application_headers={**own, "x-mark": mark},
        )  # fmt: skip
        yield mark, reason, message


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _insist(mend: Callable[[], None]) -> None:
    """Mend something, again and again while RabbitMQ is away."""

    def mended() -> bool:
        try:
            mend()
        except _ERRORS as exc:
            raise AssertionError(f"{mend.__name__}: {exc}") from exc
        return True

    eventually(mended, 90, f"{mend.__name__} succeeds", interval=0.25)
