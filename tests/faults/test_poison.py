"""P4: whatever is published to the task exchange, it ends in the DLQ with a reason or runs; no worker dies of it."""

import datetime as dt
import decimal
import json
import struct
import uuid

import amqp

import topology
from dispatch.broker import provision
from dispatch.protocol import names
from dispatch.protocol.message import DEAD_REASON, LAST_ERROR_TYPE
from dispatch.protocol.message import UNREADABLE as UNREADABLE_HEADER
from dispatch.protocol.record import State
from support.waiting import eventually
from support.worker import running_worker

PAYLOAD = {"message": "x"}


def _body(args=None, kwargs=None, embed=None):
    return json.dumps([[PAYLOAD] if args is None else args, {} if kwargs is None else kwargs, embed]).encode()


def _headers(**changes):
    given = {"task": "echo", "id": str(uuid.uuid4()), "retries": 0, **changes}
    return {name: value for name, value in given.items() if value is not ...}


def _past():
    return (dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)).isoformat()


#: What is published, and the reason that its dead letter must carry.
POISON = {
    "a body that is no JSON": (b"{", _headers(), {}, "undecodable"),
    "a body that is not UTF-8": (b'["\xff\xfe"]', _headers(), {}, "undecodable"),
    "an unknown encoding": (_body(), _headers(), {"content_encoding": "no-such"}, "undecodable"),
    "an encoding that computes for minutes": (b"a-" + b"9" * 500_000, _headers(), {"content_encoding": "punycode"}, "undecodable"),
    "a pickle": (b"\x80\x04N.", _headers(), {"content_type": "application/x-python-serialize"}, "undecodable"),
    "no content type": (_body(), _headers(), {"content_type": None}, "undecodable"),
    "no headers at all": (_body(), None, {}, "malformed"),
    "no task": (_body(), _headers(task=...), {}, "malformed"),
    "a task that is no text": (_body(), _headers(task=7), {}, "malformed"),
    "no id": (_body(), _headers(id=...), {}, "malformed"),
    "an id that is no text": (_body(), _headers(id=17), {}, "malformed"),
    "an id that is no key": (_body(), _headers(id="a b{c}"), {}, "malformed"),
    "no id and a dead letter id that is no key": (_body(), _headers(id=..., **{"x-dead-id": "{}"}), {}, "malformed"),
    "a body that is no triple": (json.dumps([[PAYLOAD], {}]).encode(), _headers(), {}, "malformed"),
    "a body that is an object": (b"{}", _headers(), {}, "malformed"),
    "keyword arguments": (_body(kwargs={"message": "x"}), _headers(), {}, "malformed"),
    "keyword arguments that are a list": (_body(kwargs=[1]), _headers(), {}, "malformed"),
    "an argument that is no object": (_body(args=["x"]), _headers(), {}, "malformed"),
    "two arguments": (_body(args=[PAYLOAD, PAYLOAD]), _headers(), {}, "malformed"),
    "an unknown type": (_body(), _headers(task="no.such"), {}, "unknown-type"),
    "an eta": (_body(), _headers(eta="2040-01-01T00:00:00+00:00"), {}, "malformed"),
    "an expiry that is over": (_body(), _headers(expires=_past()), {}, "expired"),
    "an expiry that is no time": (_body(), _headers(expires="tomorrow"), {}, "malformed"),
    "a chord": (_body(embed={"chord": {"task": "echo"}}), _headers(), {}, "malformed"),
    "error callbacks": (_body(embed={"errbacks": [{"task": "echo"}]}), _headers(), {}, "malformed"),
    "callbacks that are none": (_body(embed={"callbacks": "echo"}), _headers(), {}, "malformed"),
    "an embed that is a list": (_body(embed=[1]), _headers(), {}, "malformed"),
    "a huge sequence": (_body(), _headers(**{"x-seq": 2**62}), {}, "malformed"),
    "a negative sequence": (_body(), _headers(**{"x-seq": -1}), {}, "malformed"),
    "a sequence that is text": (_body(), _headers(**{"x-seq": "1"}), {}, "malformed"),
    "an acceptance in the year 60000": (_body(), _headers(**{"x-accepted-at": 2**60}), {}, "malformed"),
    "JSON nested beyond recursion": (b"[" * 100_000, _headers(), {}, "undecodable"),
    "JSON nested beyond reason": (_body(args=[{"a": json.loads("[" * 300 + "]" * 300)}]), _headers(), {}, "undecodable"),
    "an empty body": (b"", _headers(), {}, "undecodable"),
    "a compressed body": (_body(), _headers(compression="zlib"), {}, "undecodable"),
    "more headers than a frame holds with ours": (
        b"{", _headers(**{f"n{n}": "v" * 900 for n in range(138)}), {}, "undecodable",
    ),
    "odd AMQP types": (
        _body(),
        _headers(
            id=...,
            moment=dt.datetime(2026, 1, 1),  # noqa: DTZ001 - as py-amqp requires it
            price=decimal.Decimal("1.25"),
            table={"a": {"b": [1, True, None, 2.5]}},
            raw=b"\xff\x00",
            number=2**40,
            **{"ü" * 100: "a long name"},
        ),
        {},
        "malformed",
    ),
}  # fmt: skip


def _field(kind, data):
    """A header table of one field, as bytes on the wire."""
    table = b"\x03odd" + kind + data
    return struct.pack(">I", len(table)) + table


def _nested(levels):
    table = b""
    for _ in range(levels):
        table = b"\x01aF" + struct.pack(">I", len(table)) + table
    return struct.pack(">I", len(table)) + table


#: Header tables that RabbitMQ takes and py-amqp can't read, or can't write again.
UNREADABLE = {
    "a moment in the year 60000": _field(b"T", struct.pack(">Q", 1_830_000_000_000)),
    "tables nested beyond recursion": _nested(5_000),
    "tables nested beyond writing": _nested(700),
    "a byte array": _field(b"x", struct.pack(">I", 2) + b"\xff\x00"),
    "a short": _field(b"s", struct.pack(">h", 7)),
    "text that is not UTF-8": _field(b"S", struct.pack(">I", 2) + b"\xff\xfe"),
    "half of a surrogate pair": _field(b"S", struct.pack(">I", 3) + b"\xed\xa0\x80"),
}


class _RawHeaders(amqp.Message):
    """A message whose header table is given as bytes."""

    table = b""

    def _serialize_properties(self):
        kind = b"application/json"
        return struct.pack(">HB", 0xA000, len(kind)) + kind + self.table


def _send_raw(bench, table):
    message = _RawHeaders(_body(args=[{"message": str(len(table))}]))
    message.table = table
    bench.send_raw(message)


def _alive(worker):
    return worker.process.poll() is None


def test_each_poison_message_ends_in_the_dlq_once_with_its_reason(bench):
    with running_worker(bench.settings) as worker:
        for number, (what, (body, headers, properties, _)) in enumerate(POISON.items(), 1):
            bench.send(body, headers, **properties)
            eventually(lambda number=number: bench.depth(names.DEAD_QUEUE) == number, 20, what)
        good = bench.submit("echo", PAYLOAD)
        recorded = eventually(lambda: len(page := _dead(bench)) == len(POISON) and page, 20, "all are recorded")

        assert bench.finished(good).state is State.SUCCEEDED
        assert _alive(worker)
        assert "Traceback" not in worker.text(), worker.text()[-3_000:]
    dead_letters = bench.dead_letters()
    found = {what: dead_letter.text(DEAD_REASON) for what, dead_letter in zip(POISON, dead_letters, strict=True)}

    assert found == {what: reason for what, (_, _, _, reason) in POISON.items()}
    assert [dead_letter.body for dead_letter in dead_letters] == [body for body, _, _, _ in POISON.values()]
    assert {dead_letter.text(LAST_ERROR_TYPE) for dead_letter in dead_letters} == set(found.values())
    assert {dead_letter.task_id for dead_letter in dead_letters} == {record.task_id for record in recorded}


def _dead(bench):
    return bench.stores.dead_letters.list(limit=200).items


def test_headers_that_cannot_be_read_or_written_end_in_the_dlq_too(bench):
    with running_worker(bench.settings) as worker:
        for number, (what, table) in enumerate(UNREADABLE.items(), 1):
            _send_raw(bench, table)
            eventually(lambda number=number: bench.depth(names.DEAD_QUEUE) == number, 20, what)
        good = bench.submit("echo", PAYLOAD)

        assert bench.finished(good).state is State.SUCCEEDED
        eventually(lambda: len(_dead(bench)) == len(UNREADABLE), 20, "all are recorded")
        assert _alive(worker)
    assert {dead_letter.text(DEAD_REASON) for dead_letter in bench.dead_letters()} == {"malformed"}


def test_poison_between_good_tasks_stops_nothing_and_leaves_nothing_behind(bench):
    good, poison = [], 0
    for body, headers, properties, _ in POISON.values():
        bench.send(body, headers, **properties)
        good.append(bench.submit("echo", PAYLOAD))
        poison += 1
    for table in UNREADABLE.values():
        _send_raw(bench, table)
        good.append(bench.submit("echo", PAYLOAD))
        poison += 1
    with running_worker(bench.settings, abrupt=True) as worker:
        states = {bench.finished(task_id, 40).state for task_id in good}
        bench.drained()
        eventually(lambda: bench.depth(names.DEAD_QUEUE) == poison, 20, "every poison message is a dead letter")
        eventually(lambda: len(_dead(bench)) == poison, 20, "and is recorded")

        assert states == {State.SUCCEEDED}
        assert _alive(worker)
        eventually(lambda: bench.depth(names.RECORDER_QUEUE) == 0, 10, "the tap is read")


#: A valid task with things in its headers and its body that must not steer the run.
ODD = {
    "a time limit that is no number": (_headers(timelimit=["soon", {}]), {}),
    "a time limit that is text": (_headers(timelimit="abc"), {}),
    "callbacks in a header": (_headers(callbacks=["x"], chord={"task": "x"}, chain="y"), {}),
    "Celery's own words as odd types": (
        _headers(root_id=b"\xff", parent_id={"a": 1}, group=7, argsrepr=[1], origin=2.5, lang=None, stamps="x"), {},
    ),
    "names of methods": (_headers(get="x", update="y", hostname="z", delivery_info=3, properties="p"), {}),
    "our own inside names": (_headers(**{"dispatch-owner": "o", "dispatch-fence": "f", "dispatch-wire": "w"}), {}),
    "an embed with our names": (_headers(), {"dispatch-owner": "o", "args": [1], "id": "other"}),
    "numbers at their limits": (_headers(retries=2**53 - 1, **{"x-accepted-at": 0}), {}),
}  # fmt: skip


def test_odd_headers_and_embeds_do_not_steer_a_valid_task(bench):
    with running_worker(bench.settings, abrupt=True) as worker:
        for headers, embed in ODD.values():
            bench.send(_body(embed=embed), headers)
        states = {what: bench.finished(headers["id"]).state for what, (headers, _) in ODD.items()}

        assert states == dict.fromkeys(ODD, State.SUCCEEDED)
        assert _alive(worker)


def test_a_payload_is_data_whatever_its_names(bench):
    values = [{"__type__": "nonsense", "__value__": 1}, {"__type__": "uuid", "__value__": {"hex": "0" * 32}}]
    settings = bench.settings.model_copy(update={"http_allowed_hosts": ("127.0.0.1:9",)})
    with running_worker(settings, abrupt=True):
        ids = [
            bench.submit("http.request", {"method": "POST", "url": "http://127.0.0.1:9/", "json": value})
            for value in values
        ]
        errors = [
            eventually(lambda task_id=task_id: bench.store.get(task_id).error, 20, "its attempt was made").type
            for task_id in ids
        ]

    assert errors == ["upstream-unavailable"] * 2


def test_dead_letters_that_the_broker_made_of_poison_are_recorded_too(bench):
    settings = bench.settings.model_copy(update={"queue_ttl": 0.5})
    provision.apply_policies(topology.broker_map(settings), settings)
    for body, headers, properties, _ in POISON.values():
        bench.send(body, headers, **properties)
    for table in UNREADABLE.values():
        _send_raw(bench, table)
    poison = len(POISON) + len(UNREADABLE)
    eventually(lambda: bench.depth(names.DEAD_QUEUE) == poison, 20, "all have expired")
    ids = {dead_letter.dead_letter_id for dead_letter in bench.dead_letters()}
    with running_worker(bench.settings, abrupt=True) as worker:
        eventually(lambda: bench.depth(names.RECORDER_QUEUE) == 0, 20, "the tap is read")
        eventually(lambda: {record.task_id for record in _dead(bench)} == ids, 20, "all are recorded")

        assert _alive(worker)
        assert '"thread": "recorder"' not in worker.text()
    assert len(ids) == poison
    unreadable = [record for record in _dead(bench) if UNREADABLE_HEADER in bench.message(record.task_id).headers]
    assert [record.dead_reason for record in unreadable] == ["unknown"] * 2
    assert {record.state for record in _dead(bench) if record not in unreadable} == {State.EXPIRED}


def test_poison_without_an_id_that_is_delivered_again_leaves_one_dead_letter(bench):
    with running_worker(bench.settings) as worker:
        for _ in range(2):  # as after a kill between publish and ack
            bench.send(_body(), _headers(id=...))
        eventually(lambda: "AGAIN" in worker.text(), 20, "the tap has seen both dead letters")
        eventually(lambda: bench.depth(names.DEAD_QUEUE) == 1, 20, "the second dead letter is taken out")

    assert [dead_letter.dead_letter_id for dead_letter in bench.dead_letters()] == [
        record.task_id for record in _dead(bench)
    ]
