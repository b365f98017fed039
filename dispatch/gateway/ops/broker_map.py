"""The broker map as a drawing: where its nodes and edges are, with what is in them now. Pure.

From left to right: the task exchange, the work queue of each lane, the workers, and what they hand over to: the rungs and the
dead-letter queue. Below them what waits for something else: delays, and held tasks. Each of those leads back to the exchange.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from dispatch.broker.queue_stats import QueueView
from dispatch.protocol import names
from dispatch.store.workers import WorkerInfo

#: Units of the drawing: its width, and left edges and widths of its columns.
WIDTH = 1_120
_EXCHANGE, _WORK, _WORKERS, _RIGHT = (20, 170), (260, 220), (570, 200), (860, 240)

#: Heights of nodes, and the room between two.
_TALL, _LOW, _GAP = 84, 52, 12

#: Pages by kind of node.
_PAGES = {
    "work": "/ops/queues", "rung": "/ops/tasks?state=RETRY_WAIT", "workers": "/ops/workers", "held": "/ops/tasks?state=HELD",
    "delay": "/ops/tasks?state=DELAYED", "dead": "/ops/dead-letters",
}  # fmt: skip

#: Above the first node: the way back from the rungs.
_TOP = 54


@dataclasses.dataclass(frozen=True, slots=True)
class Station:
    """A box."""

    name: str
    kind: str  #: ``exchange``, ``work``, ``workers``, ``rung``, ``held``, ``delay`` or ``dead``
    title: str
    figure: str  #: the number that counts
    detail: str
    level: str  #: ``good``, ``warn`` or ``bad``
    hint: str
    x: int
    y: int
    width: int
    height: int

    @property
    def href(self) -> str:
        """The page that has more of it; empty for none."""
        return _PAGES.get(self.kind, "")

    @property
    def middle(self) -> float:
        """Of its height."""
        return self.y + self.height / 2

    @property
    def right(self) -> int:
        """Its right edge."""
        return self.x + self.width


@dataclasses.dataclass(frozen=True, slots=True)
class Edge:
    """A way of messages."""

    path: str  #: of SVG
    rate: float | None  #: messages a second; None where RabbitMQ does not measure it
    x: float  #: of the rate
    y: float

    @property
    def busy(self) -> bool:
        """Whether messages go along it."""
        return bool(self.rate)


@dataclasses.dataclass(frozen=True, slots=True)
class Drawing:
    """The map."""

    height: int
    nodes: Sequence[Station]
    edges: Sequence[Edge]
    summary: str  #: in words, for those who do not see it


def draw(queues: Sequence[QueueView], workers: Sequence[WorkerInfo], ages: Mapping[str, float]) -> Drawing:
    """The drawing.

    Args:
        queues: every queue.
        workers: those with a heartbeat.
        ages: seconds for which the oldest message waits, by queue.
    """
    by_role = {
        role: [queue for queue in queues if queue.role == role]
        for role in ("work", "rung", "lease", "hold", "delay", "dead-letters")
    }
    work = _stack(_WORK, _TOP, _TALL, [_work(queue, ages) for queue in by_role["work"]])
    waits = _stack(_RIGHT, _TOP, _LOW, [_rung(queue) for queue in (*by_role["rung"], *by_role["lease"])])
    bottom = max([node.y + node.height for node in (*work, *waits)], default=_TOP) + 34
    middle = _middle([*work, *waits])
    exchange = _node(
        "exchange", "task exchange", "", "by routing key", at=(_EXCHANGE, middle - 36, 72), name=names.TASK_EXCHANGE
    )
    crew = _crew(workers, middle)
    held = _node("held", "held", *_sums(by_role["hold"]), at=(_WORKERS, bottom, _LOW + 16), name=names.HOLD_QUEUE)
    delayed = _node(
        "delay",
        "delay levels",
        *_sums(by_role["delay"]),
        at=(_WORK, bottom, _LOW + 16),
        hint="Tasks for later, and waits between steps",
    )
    dead = [_dead(queue, ages, bottom) for queue in by_role["dead-letters"]]
    nodes = [exchange, *work, crew, *waits, delayed, held, *dead]
    edges = [
        *_forward(exchange, work, crew, by_role["work"]),
        *_aside(crew, waits, by_role),
        *_down(crew, held, delayed, dead, by_role),
        *_back(exchange, waits, held, delayed),
    ]
    return Drawing(bottom + _LOW + 54, nodes, edges, _summary(nodes))


def _node(
    kind: str,
    title: str,
    figure: str,
    detail: str,
    *,
    at: tuple[tuple[int, int], float, int],
    level: str = "good",
    hint: str = "",
    name: str = "",
) -> Station:
    (x, width), y, height = at
    return Station(name or title, kind, title, figure, detail, level, hint or name or title, x, round(y), width, height)


def _stack(column: tuple[int, int], top: int, height: int, nodes: Iterable[Station]) -> list[Station]:
    return [
        dataclasses.replace(node, x=column[0], width=column[1], y=top + number * (height + _GAP), height=height)
        for number, node in enumerate(nodes)
    ]


def _middle(nodes: Sequence[Station]) -> float:
    return (
        min((node.y for node in nodes), default=_TOP)
        + max((node.y + node.height for node in nodes), default=_TOP + 120)
    ) / 2


_NOWHERE = ((0, 0), 0.0, 0)


def _work(queue: QueueView, ages: Mapping[str, float]) -> Station:
    limit = (queue.guard or {}).get("limit")
    refusing = bool((queue.guard or {}).get("refusing"))
    stuck = bool(queue.ready) and not queue.consumers
    near = bool(limit and queue.ready and queue.ready * 2 > limit)
    level = "bad" if refusing or stuck or queue.drift else "warn" if near else "good"
    age = ages.get(queue.name)
    oldest = f", oldest {_seconds(age)}" if age else ""
    detail = f"{_count(queue.unacked)} in hand{oldest}"
    hint = "Refuses new tasks (429)" if refusing else f"Limit of the guard: {limit:,}" if limit else ""
    return _node(
        "work",
        queue.lane or "work queue",
        _count(queue.ready),
        detail,
        at=_NOWHERE,
        level=level,
        hint=hint,
        name=queue.name,
    )


def _rung(queue: QueueView) -> Station:
    title = "lease" if queue.role == "lease" else queue.name.rpartition(".")[2]
    wait = f"for {_seconds(queue.ttl)}" if queue.ttl else ""
    return _node(
        "rung", title, _count(queue.total), wait, at=_NOWHERE, level="bad" if queue.drift else "good", name=queue.name
    )


def _dead(queue: QueueView, ages: Mapping[str, float], y: int) -> Station:
    age = ages.get(queue.name)
    detail = f"oldest {_seconds(age)}" if age else "empty" if queue.total == 0 else ""
    level = "bad" if queue.drift else "warn" if queue.total else "good"
    return _node(
        "dead", "dead letters", _count(queue.total), detail, at=(_RIGHT, y, _LOW + 16), level=level, name=queue.name
    )


def _crew(workers: Sequence[WorkerInfo], middle: float) -> Station:
    active, places = sum(each.active for each in workers), sum(each.processes for each in workers)
    title = f"{len(workers)} {'worker' if len(workers) == 1 else 'workers'}"
    detail = f"running, of {places} {'place' if places == 1 else 'places'}"
    return _node(
        "workers",
        title,
        f"{active:,}",
        detail,
        at=(_WORKERS, middle - _TALL / 2, _TALL),
        level="good" if workers else "bad",
        name="workers",
    )


def _sums(queues: Sequence[QueueView]) -> tuple[str, str]:
    totals = [queue.total for queue in queues if queue.total is not None]
    used = sum(1 for total in totals if total)
    return (f"{sum(totals):,}" if totals else "?"), (
        f"in {used} of {len(queues)} queues" if len(queues) > 1 else "paused, or by a key"
    )


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    bend = (to_x - x) / 2
    return f"M{x:g} {y:g}C{x + bend:g} {y:g} {to_x - bend:g} {to_y:g} {to_x:g} {to_y:g}"


def _edge(start: Station, end: Station, rate: float | None) -> Edge:
    x, to_x = start.right, end.x - 7
    return Edge(
        _curve(x, start.middle, to_x, end.middle),
        rate,
        x + (to_x - x) * 0.55,
        start.middle + (end.middle - start.middle) * 0.55 - 7,
    )


def _forward(exchange: Station, work: Sequence[Station], crew: Station, queues: Sequence[QueueView]) -> Iterable[Edge]:
    for node, queue in zip(work, queues, strict=True):
        yield _edge(exchange, node, queue.publish_rate)
        yield _edge(node, crew, queue.deliver_rate)


def _aside(crew: Station, waits: Sequence[Station], by_role: Mapping[str, Sequence[QueueView]]) -> Iterable[Edge]:
    for node, queue in zip(waits, (*by_role["rung"], *by_role["lease"]), strict=True):
        yield _edge(crew, node, queue.publish_rate)


def _down(
    crew: Station, held: Station, delayed: Station, dead: Sequence[Station], by_role: Mapping[str, Sequence[QueueView]]
) -> Iterable[Edge]:
    bottom, x = crew.y + crew.height, crew.x + crew.width / 2
    yield Edge(f"M{x:g} {bottom}V{held.y - 7}", _rate(by_role["hold"]), x + 26, (bottom + held.y) / 2)
    start = crew.x + 24
    yield Edge(
        f"M{start} {bottom}C{start} {held.y - 20} {delayed.right + 40} {delayed.middle:g} {delayed.right + 7} {delayed.middle:g}",
        _rate(by_role["delay"]),
        start - 30,
        held.y - 16,
    )
    for node in dead:
        start = crew.right - 24
        path = f"M{start} {bottom}C{start} {node.y - 10} {node.x - 60} {node.middle:g} {node.x - 7} {node.middle:g}"
        yield Edge(path, _rate(by_role["dead-letters"]), node.x - 44, node.middle - 9)


def _back(exchange: Station, waits: Sequence[Station], held: Station, delayed: Station) -> Iterable[Edge]:
    """The ways back after a wait: over the top from the rungs, along the bottom from the rest."""
    x, bottom = exchange.x + exchange.width / 2, exchange.y + exchange.height + 7
    if waits:
        first = waits[0]
        over = first.x + first.width / 2
        yield Edge(
            f"M{over:g} {first.y}V30Q{over:g} 18 {over - 12:g} 18H{x + 12:g}Q{x:g} 18 {x:g} 30V{exchange.y - 7}",
            None,
            0,
            0,
        )
    yield Edge(
        f"M{delayed.x} {delayed.middle:g}H{x + 12:g}Q{x:g} {delayed.middle:g} {x:g} {delayed.middle - 12:g}V{bottom}",
        None,
        0,
        0,
    )
    under = held.y + held.height + 16
    middle = held.x + held.width / 2
    yield Edge(
        f"M{middle:g} {held.y + held.height}V{under - 10}Q{middle:g} {under} {middle - 10:g} {under}H{x - 14:g}Q{x - 24:g} {under} {x - 24:g} {under - 10}V{bottom}",
        None,
        0,
        0,
    )


def _rate(queues: Sequence[QueueView]) -> float | None:
    rates = [queue.publish_rate for queue in queues if queue.publish_rate is not None]
    return sum(rates) if rates else None


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _seconds(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _summary(nodes: Sequence[Station]) -> str:
    return "; ".join(f"{node.title}: {node.figure} {node.detail}".strip() for node in nodes if node.figure)
