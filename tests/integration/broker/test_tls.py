"""TLS on every path to RabbitMQ, to its management API and to Redis: an impostor gets no byte, the real server all."""

import contextlib
import threading

import pytest
import structlog.testing

import topology
from celery_app import create_celery
from dispatch.broker import connections, provision
from dispatch.broker.depth import DepthGauge
from dispatch.broker.management import Management
from dispatch.broker.publisher import Publisher
from dispatch.config import tls
from dispatch.config.settings import load
from dispatch.deadletters.recorder import DeadLetterRecorder
from dispatch.deadletters.walk import walk
from dispatch.errors import InDoubt
from dispatch.protocol import names
from dispatch.protocol.message import Message
from dispatch.store.scripts import RedisHandle
from launcher import plan
from launcher import redis as private_redis
from support.certificates import Authority
from support.gateway_live import gateway
from support.stores import Stores
from support.tls_front import TlsFront
from support.waiting import eventually


# --- the paths: each connects once, and raises what it meets ---------------------------------------
def publisher(settings):
    made = Publisher(settings.address("gateway"), timeout=1)
    try:
        eventually(lambda: made.ready() or made.trouble, 10, "connected or refused")
        if made.trouble:
            raise ConnectionError(f"{made.trouble}")
    finally:
        made.close()


def consumer(settings):
    celery = create_celery(settings)
    celery.conf.update(connections.celery(settings.address("worker")))
    with celery.connection_for_read() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0)


def inspection(settings):
    """`celery inspect`, `events` and Flower: what the app connects with before it is a worker's."""
    with create_celery(settings).connection() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0)


def declaration(settings):
    provision.declare_at(settings.address("gateway"), topology.broker_map(settings), settings)


def depth_gauge(settings):
    gauge = DepthGauge(settings)
    with contextlib.closing(gauge):
        gauge.read()


def dlq_walk(settings):
    walk(settings.address("replay"), None, lambda _: False)


def recorder(settings):
    made = DeadLetterRecorder(settings.address("worker"), None, None)
    made.stop()
    made.step()


def launcher_check(settings):
    plan._check_broker(settings.address("worker"))


def management(settings):
    with Management(settings) as api:
        api.version()


def redis_handle(settings):
    with contextlib.closing(RedisHandle(settings, timeout=1)) as handle:
        handle.run(("PING",))


def launcher_redis(settings):
    reason = private_redis.ping_probe(settings.redis_url.get_secret_value(), settings.redis_tls)()
    if reason:
        raise ConnectionError(reason)


AMQP = [
    publisher,
    consumer,
    inspection,
    declaration,
    depth_gauge,
    dlq_walk,
    recorder,
    launcher_check,
]
PATHS = [*AMQP, management, redis_handle, launcher_redis]

ATTACKS = {
    "another name": (lambda ours, _: ours.issue("elsewhere.example"), "Hostname mismatch"),
    "another authority": (lambda _, theirs: theirs.issue("localhost"), "unable to get local issuer certificate"),
    "expired": (lambda ours, _: ours.issue("localhost", expired=True), "certificate has expired"),
}


# --- fixtures ------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def authorities(tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificates")
    return Authority(directory, "ours"), Authority(directory, "theirs")


@pytest.fixture(scope="module")
def applied(module_settings):
    provision.apply(topology.broker_map(module_settings), module_settings)
    return module_settings


@contextlib.contextmanager
def fronted(settings, own, ca, *, clients="", host="localhost", **more):
    """Settings whose three servers are behind TLS with one certificate, and the three fronts."""
    urls = {name: getattr(settings, name).get_secret_value() for name in ("broker_url", "management_url", "redis_url")}
    with contextlib.ExitStack() as stack:
        fronts = {name: stack.enter_context(TlsFront(url, own, clients)) for name, url in urls.items()}
        changes = {name: front.url(host) for name, front in fronts.items()}
        kept = {name: getattr(settings, name) for name in settings.model_fields_set}
        yield load({}, **{**kept, **changes, "broker_tls_ca": ca, "redis_tls_ca": ca, **more}), list(fronts.values())


# --- attacks -------------------------------------------------------------------------------------
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
def test_an_impostor_is_refused_with_the_reason_and_receives_nothing(applied, authorities, path, attack):
    issue, reason = ATTACKS[attack]

    with fronted(applied, issue(*authorities), authorities[0].ca) as (settings, fronts):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever the path makes of it
            path(settings)

        assert reason in f"{caught.value} {tls.refusal(caught.value)}"
        assert "guest:guest" not in str(caught.value)
        assert [front.received for front in fronts] == [b"", b"", b""]
        eventually(lambda: any(front.refused for front in fronts), 5, "the handshake failed")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
def test_the_real_server_is_used_by_name_over_tls_1_2_at_least(applied, authorities, path):
    ours = authorities[0]

    with fronted(applied, ours.issue("localhost"), ours.ca) as (settings, fronts):
        path(settings)

        assert any(front.received for front in fronts)
        assert {version for front in fronts for version in front.versions} <= {"TLSv1.2", "TLSv1.3"}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
def test_a_server_that_asks_for_a_certificate_gets_ours(applied, authorities, path):
    ours, theirs = authorities
    client = ours.issue("dispatch")
    files = {
        f"{server}_tls_{part}": getattr(client, part) for server in ("broker", "redis") for part in ("cert", "key")
    }

    with fronted(applied, ours.issue("localhost"), ours.ca, clients=ours.ca, **files) as (settings, fronts):
        path(settings)
        assert any(front.received for front in fronts)

    with fronted(applied, ours.issue("localhost"), ours.ca, clients=theirs.ca, **files) as (settings, fronts):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever the path makes of it
            path(settings)
        assert [front.received for front in fronts] == [b"", b"", b""]
    assert "guest:guest" not in str(caught.value)


def test_a_host_is_an_address_or_any_name_where_one_is_set(applied, authorities):
    ours = authorities[0]
    with fronted(applied, ours.issue("127.0.0.1"), ours.ca, host="127.0.0.1") as (settings, _):
        for path in PATHS:
            path(settings)

    with fronted(applied, ours.issue("rabbit.internal"), ours.ca, broker_tls_server_name="rabbit.internal") as (settings, _):  # fmt: skip
        for path in AMQP:
            if path is not declaration:  # asks the management API, too
                path(settings)


@pytest.mark.parametrize("path", AMQP, ids=lambda path: path.__name__)
def test_each_host_of_a_failover_must_have_its_own_name(applied, authorities, path):
    ours = authorities[0]
    url = applied.broker_url.get_secret_value()

    with (
        fronted(applied, ours.issue("localhost"), ours.ca) as (settings, _),
        TlsFront(url, ours.issue("127.0.0.1")) as second,
        TlsFront(url, ours.issue("localhost")) as impostor,
    ):
        # The first has a name that is not the first host's; the second its own; the third the first host's name.
        wrong, right = impostor.url("127.0.0.1"), second.url("127.0.0.1")
        both = settings.model_copy(update={"broker_url": type(settings.broker_url)(f"{wrong};{right}")})
        if path is publisher:
            made = Publisher(both.address("gateway"), timeout=1)
            eventually(made.ready, 10, "connected to the second host")
            made.close()
        else:
            path(both)

        assert impostor.received == b""
        assert second.received


# --- reasons -------------------------------------------------------------------------------------
def test_readyz_names_the_reason_and_the_log_has_it_once(applied, authorities):
    ours = authorities[0]

    with (
        fronted(applied, ours.issue("elsewhere.example"), ours.ca) as (settings, _),
        structlog.testing.capture_logs() as lines,
        gateway(settings, ready=False) as client,
    ):
        body = eventually(lambda: _refused(client), 10, lambda: client.get("/readyz").text)
        eventually(lambda: len(_events(lines)) == 3, 10, lambda: str(lines))
        refused = [eventually(lambda: _refused(client), 10, lambda: client.get("/readyz").text) for _ in range(2)]

    details = {name: check["detail"] for name, check in body["checks"].items()}
    assert all("its certificate was refused: Hostname mismatch" in detail for detail in details.values())
    assert "elsewhere" not in str(refused)
    assert "localhost" not in str(details)
    assert sorted(_events(lines)) == [
        "no connection to RabbitMQ",
        "no connection to Redis",
        "reading the work queue depth failed: the 429 guard admits all tasks",
    ]
    assert "guest:guest" not in str(lines)


def _events(lines):
    return [line["event"] for line in lines if "certificate was refused" in str(line.get("reason"))]


def _refused(client):
    body = client.get("/readyz").get_json()
    return body if all("refused" in check["detail"] for check in body["checks"].values()) else None


# --- the writer and the reader of one TLS connection ------------------------------------------------
def test_many_threads_publish_over_one_tls_connection(applied, authorities):
    ours = authorities[0]
    errors = []

    def publish(made, message):
        try:
            for _ in range(150):
                made.publish(message, names.TASK_EXCHANGE, message.routing_key, timeout=20)
        except Exception as exc:  # noqa: BLE001 - reported below
            errors.append(exc)

    with fronted(applied, ours.issue("localhost"), ours.ca) as (settings, fronts):
        made = Publisher(settings.address("gateway"), timeout=20)
        eventually(made.ready, 10, "connected")
        first = made._connection
        threads = [threading.Thread(target=publish, args=(made, _message(size))) for size in (10, 10, 60_000, 200_000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)

        assert errors == []
        assert made._connection is first
        assert depth_of(applied) == 600
        first.kill(InDoubt("the test ends it"))
        eventually(lambda: made.ready() and made._connection is not first, 10, "connected again")
        made.close()
        _purge(applied)
    assert fronts[0].versions == {"TLSv1.3"}


def depth_of(settings):
    gauge = DepthGauge(settings)
    with contextlib.closing(gauge):
        return gauge.read()


def _purge(settings):
    with connections.connection(settings.address("admin")) as connection:
        connection.default_channel.queue_purge(names.WORK_QUEUE)


def _message(size):
    return Message(body=b"x" * size, headers={}, routing_key=f"{names.ROUTING_KEY}.echo")


def test_redis_keeps_its_refusal_while_calls_fail_at_once(applied, authorities):
    ours = authorities[0]
    with fronted(applied, ours.issue("localhost", expired=True), ours.ca) as (settings, _):
        stores = Stores(settings)
        reasons = []
        for _ in range(3):
            with pytest.raises(Exception) as caught:  # noqa: PT011
                stores.redis.run(("PING",))
            reasons.append(caught.value.trouble.reason)
        stores.close()

    assert reasons == ["its certificate was refused: certificate has expired"] * 3
