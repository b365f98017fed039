"""P2, P7: what the gateway learns of RabbitMQ and Redis is true, comes within 5 s, and what was refused never runs."""

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from kombu import Connection
from pydantic import SecretStr
from redis import Redis

import topology
from dispatch.broker import provision
from dispatch.broker.publisher import Publisher
from dispatch.errors import InDoubt, Nacked, NotSent, PublishError, StoreUnavailable, Unroutable
from dispatch.protocol import names
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.record import State
from dispatch.store.idempotency import KeyInProgress
from dispatch.store.scripts import scripts
from support.proxy import DOWN, UP, Proxy
from support.stores import Stores
from support.waiting import eventually
from support.worker import running_worker

PAYLOAD = {"message": "x"}


@contextlib.contextmanager
def gateway(bench, *, broker=None, redis=None):
    """A gateway of one's own, with proxies in front of its servers."""
    settings = bench.settings
    if redis is not None:
        settings = settings.model_copy(update={"redis_url": SecretStr(redis.url)})
    url = settings.broker("gateway") if broker is None else broker.url
    stores = Stores(settings, timeout=settings.store_timeout, ladders=bench.stores.ladders)
    publisher = Publisher(url, timeout=settings.confirm_timeout)
    publisher.start()
    try:
        yield bench.submitter_of(stores, publisher)
    finally:
        publisher.close()
        stores.close()


def _broker(bench):
    return Proxy.to(bench.settings.broker("gateway"))


def _redis(bench):
    return Proxy.to(bench.settings.redis_url.get_secret_value())


def _refused(bench, error, **options):
    """Submit and expect an error within 5 s; the seconds it took and the error."""
    began = time.monotonic()
    with pytest.raises(error) as caught:
        bench.submit("echo", PAYLOAD, **options)
    seconds = time.monotonic() - began

    assert seconds < 5
    return seconds, caught.value


def _rejected(bench):
    """Ids of the records that refused tasks leave; no list has them."""
    redis, head = bench.stores.redis, bench.stores.redis.keys.prefix + "task:"
    client = Redis.from_url(bench.settings.redis_url.get_secret_value(), decode_responses=True)
    with contextlib.closing(client):
        ids = [key.removeprefix(head).strip("{}") for key in client.scan_iter(f"{head}*")]
        listed = client.zrange(redis.keys.index(None), 0, -1) + client.zrange(redis.keys.index("local"), 0, -1)
    rejected = {task_id for task_id in ids if bench.state(task_id) is State.REJECTED}

    assert rejected.isdisjoint(listed)
    return rejected


@contextlib.contextmanager
def _unbound(bench):
    key = f"{names.ROUTING_KEY}.#"
    with Connection(bench.settings.broker("admin")) as connection:
        channel = connection.default_channel
        channel.queue_unbind(names.WORK_QUEUE, names.TASK_EXCHANGE, key)
        yield
        channel.queue_bind(names.WORK_QUEUE, names.TASK_EXCHANGE, key)


def test_what_was_refused_never_runs_and_its_key_is_free(bench):
    full = bench.settings.model_copy(update={"queue_depth_limit": 1})
    with _unbound(bench):
        _, unroutable = _refused(bench, Unroutable, key="unroutable")
    with _broker(bench) as proxy:
        proxy.refuse()
        with gateway(bench, broker=proxy) as submitter:
            _, not_sent = _refused(bench, NotSent, key="not-sent", submitter=submitter)
    provision.apply_policies(topology.broker_map(full), full)
    accepted = []
    with pytest.raises(Nacked):  # the limit of a quorum queue is soft
        accepted.extend(bench.submit("echo", PAYLOAD) for _ in range(50))
    accepted = [record.task_id for record in bench.store.list(state="QUEUED").items]
    _, nacked = _refused(bench, Nacked, key="nacked")
    rejected = _rejected(bench)

    assert len(rejected) == 4
    assert "robot.task.dispatch.echo" in str(unroutable)
    assert (type(unroutable), type(not_sent), type(nacked)) == (Unroutable, NotSent, Nacked)
    with running_worker(bench.settings, abrupt=True):
        again = [bench.submit("echo", PAYLOAD, key=key) for key in ("unroutable", "not-sent", "nacked")]
        states = {bench.finished(task_id).state for task_id in [*accepted, *again]}
        bench.drained()

    assert states == {State.SUCCEEDED}
    assert _rejected(bench) == rejected
    assert {hop for task_id in rejected for hop in bench.hops(task_id)} == {"accepted", "rejected"}


def test_a_silent_broker_leaves_one_task_in_doubt_and_then_is_left_alone(bench):
    with _broker(bench) as proxy, gateway(bench, broker=proxy) as submitter:
        first = bench.submit("echo", PAYLOAD, submitter=submitter)
        proxy.hold(DOWN)
        _, doubt = _refused(bench, InDoubt, key="k", submitter=submitter)
        later = [_refused(bench, NotSent, submitter=submitter)[0] for _ in range(5)]
        proxy.release()
        # A repeat before that would be refused, which settles the doubt: then the key is another task's.
        eventually(submitter._publisher.ready, 20, "the broker's confirms arrive again")
        task_id = eventually(lambda: _accepted(bench, submitter, key="k"), 15, "the key is accepted")
        replay = bench.submit("echo", PAYLOAD, key="k", submitter=submitter)
        with running_worker(bench.settings, abrupt=True):
            records = [bench.finished(each) for each in (first, task_id)]
            bench.drained()

    assert task_id == replay == doubt.task_id
    assert max(later) < 1.5
    assert [record.state for record in records] == [State.SUCCEEDED] * 2
    assert [bench.hops(each).count("started") for each in (first, task_id)] == [1, 1]
    assert bench.depth(names.DEAD_QUEUE) == 0


def test_a_refusal_of_the_repeated_key_leaves_the_doubt_and_its_task_runs_once(bench):
    with _broker(bench) as proxy, gateway(bench, broker=proxy) as submitter:
        bench.submit("echo", PAYLOAD, submitter=submitter)
        proxy.hold(DOWN)  # the message comes through, its confirm does not
        _, doubt = _refused(bench, InDoubt, key="k", submitter=submitter)
        again = eventually(lambda: _in_doubt(bench, submitter), 10, "the repeat is taken up")
        patient = bench.settings.model_copy(
            update={"unpublished_grace": 60.0}
        )  # or its sweeper may come before its claim
        with running_worker(patient, abrupt=True):
            finished = bench.finished(doubt.task_id)
            bench.drained()
        repeated = eventually(lambda: _accepted(bench, bench.submitter, key="k"), 10, "the key may be repeated")

    assert {again.task_id, finished.task_id, repeated} == {doubt.task_id}
    assert bench.hops(doubt.task_id).count("started") == 1


def _in_doubt(bench, submitter):
    try:
        bench.submit("echo", PAYLOAD, key="k", submitter=submitter)
    except KeyInProgress:
        return None
    except InDoubt as exc:
        return exc
    raise AssertionError("accepted over a silent broker")


def _accepted(bench, submitter, **options):
    try:
        return bench.submit("echo", PAYLOAD, submitter=submitter, **options)
    except (PublishError, KeyInProgress):
        return None


def test_a_missing_exchange_is_named_and_the_publisher_heals_by_itself(bench):
    def mend(url):
        with Connection(url) as connection:
            provision.declare(connection, topology.broker_map(bench.settings), bench.settings)

    message = bench.message(bench.submit("echo", PAYLOAD))
    publisher = Publisher(bench.settings.broker("gateway"), timeout=2, on_open=mend)
    try:
        publisher.publish(message, names.TASK_EXCHANGE, message.routing_key)
        with Connection(bench.settings.broker("admin")) as connection:
            connection.default_channel.exchange_delete(names.TASK_EXCHANGE)
        with pytest.raises(Unroutable, match=r"no exchange 'robot\.task\.topic'"):
            publisher.publish(message, names.TASK_EXCHANGE, message.routing_key)

        assert eventually(lambda: _published(publisher, message), 15, "the exchange is back") > 0
    finally:
        publisher.close()


def _published(publisher, message):
    try:
        return publisher.publish(message, names.TASK_EXCHANGE, message.routing_key)
    except PublishError:
        return 0


def test_many_threads_each_get_their_own_verdict(bench):
    message = bench.message(bench.submit("echo", PAYLOAD))
    bench.purge(names.WORK_QUEUE)
    ways = [(names.TASK_EXCHANGE, message.routing_key), (names.TASK_EXCHANGE, "nowhere")]

    def publish(thread):
        seen = []
        for number in range(200):
            exchange, key = ways[(thread + number) % 3 == 0]
            try:
                bench.publisher.publish(message, exchange, key, timeout=20)
                seen.append((key, "confirmed"))
            except PublishError as exc:
                seen.append((key, type(exc).__name__))
        return seen

    with ThreadPoolExecutor(8) as pool:
        verdicts = [verdict for seen in pool.map(publish, range(8)) for verdict in seen]
    confirmed = verdicts.count((message.routing_key, "confirmed"))

    assert confirmed + verdicts.count(("nowhere", "Unroutable")) == 1_600
    assert bench.depth(names.WORK_QUEUE) == confirmed > 1_000


#: What may happen to Redis at a step of a submission.
def _refuse(proxy):
    proxy.refuse()
    proxy.cut()


FAULTS = {
    "is refused": _refuse,
    "receives nothing": lambda proxy: proxy.hold(UP),
    "sends nothing": lambda proxy: proxy.hold(DOWN),
}
STEPS = ("reserve_idempotency_key", "accept", "mark_published")


def test_redis_may_fail_at_every_step_and_every_error_is_true(bench):
    outcomes = {}
    for step in STEPS:
        for what, fault in FAULTS.items():
            outcomes[step, what] = _submit_through_a_fault(bench, step, fault)
    errors = {case: type(exc) for case, (_, exc) in outcomes.items()}
    in_doubt = [exc.task_id for _, exc in outcomes.values() if isinstance(exc, InDoubt)]
    never = {record.task_id for record in bench.store.list(state="SCHEDULED", limit=200).items} - set(in_doubt)
    with running_worker(bench.settings, abrupt=True):
        doubted = {bench.finished(task_id).state for task_id in in_doubt}
        refused = {bench.finished(task_id).state for task_id in never}
        bench.drained()

    assert errors == {
        (step, what): InDoubt if step == "mark_published" else StoreUnavailable for step, what in outcomes
    }
    assert max(seconds for seconds, _ in outcomes.values()) < 5
    assert doubted <= {State.SUCCEEDED, State.REJECTED}  # unless a worker was in time, the sweeper gave it up
    assert refused == {State.REJECTED}
    # Key and record are one round trip: an answer that was held is of a record; a command that was held, or cut, may have come through.
    assert 2 <= len(never) <= 6
    rejected = {*never, *(task_id for task_id in in_doubt if bench.state(task_id) is State.REJECTED)}
    assert not any("started" in bench.hops(task_id) for task_id in rejected)


def _submit_through_a_fault(bench, step, fault):
    trigger = scripts()[step].sha.encode()
    with _redis(bench) as proxy, gateway(bench, redis=proxy) as submitter:
        bench.submit("echo", PAYLOAD, key=new_task_id(), submitter=submitter)  # makes scripts and connections
        struck = threading.Event()

        def watch(direction, data):
            if direction == UP and trigger in data and not struck.is_set():
                struck.set()
                fault(proxy)

        proxy.watch = watch
        try:
            return _refused(bench, (StoreUnavailable, InDoubt), key=new_task_id(), submitter=submitter)
        finally:
            assert struck.is_set(), step
            proxy.watch = None
            proxy.release()


def test_a_key_whose_submission_was_cut_off_goes_on_with_the_same_task(bench):
    ids = []
    for step, what in (
        ("accept", "sends nothing"),
        ("mark_published", "sends nothing"),
        ("mark_published", "is refused"),
    ):
        trigger = scripts()[step].sha.encode()
        with _redis(bench) as proxy, gateway(bench, redis=proxy) as submitter:
            bench.submit("echo", PAYLOAD, key=new_task_id(), submitter=submitter)  # the scripts are known
            proxy.watch = lambda _, data, proxy=proxy, trigger=trigger, what=what: (
                FAULTS[what](proxy) if trigger in data else None
            )
            with pytest.raises((StoreUnavailable, InDoubt)):
                bench.submit("echo", PAYLOAD, key=f"{step} {what}", submitter=submitter)
            proxy.watch = None
            proxy.release()
        ids.append(eventually(lambda step=step, what=what: _accepted(bench, None, key=f"{step} {what}"), 10))
    with running_worker(bench.settings, abrupt=True):
        states = [bench.finished(task_id).state for task_id in ids]
        bench.drained()

    assert states == [State.SUCCEEDED] * 3
    assert [bench.hops(task_id).count("succeeded") for task_id in ids] == [1, 1, 1]
    assert len(bench.store.list(limit=200).items) == 2 * 3  # with those that made the scripts known
