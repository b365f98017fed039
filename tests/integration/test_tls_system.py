"""The whole system over TLS, with RabbitMQ's and Redis's own, and certificates on both sides."""

import httpx
import pytest

import topology
from dispatch.broker import provision
from dispatch.broker.management import Management, ManagementUnavailable
from dispatch.config.settings import load
from support import processes, redises, tls_rabbitmq
from support.certificates import Authority
from support.gateway_live import gateway
from support.ports import free_port
from support.redises import ServerTls
from support.waiting import eventually
from support.worker import environment, running_worker


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """Settings of a system whose servers accept TLS only, from clients with a certificate."""
    directory = tmp_path_factory.mktemp("tls")
    ours = Authority(directory, "ours")
    server, client = ours.issue("127.0.0.1"), ours.issue("dispatch")
    files = {
        f"{name}_tls_{part}": value
        for name in ("broker", "redis")
        for part, value in (("ca", ours.ca), ("cert", client.cert), ("key", client.key))
    }
    with tls_rabbitmq.running(ours.ca, server) as rabbitmq, redises.single(ServerTls(ours.ca, server)) as redis:
        settings = load(
            {},
            broker_url=rabbitmq.broker_url,
            management_url=rabbitmq.management_url,
            redis_url=redis.url,
            ladder="1m=1,5m=2,30m=3",
            lease_park=1,
            lease=2,
            soft_shutdown=2,
            run_dir=str(directory / "run"),
            **files,
        )
        provision.apply(topology.broker_map(settings), settings)
        yield settings


def test_a_task_climbs_the_ladder_dies_and_is_redriven_over_tls(secured):
    with running_worker(secured, abrupt=True) as worker, gateway(secured) as client:
        climbs = _submitted(client, {"message": "x", "failTimes": 1})
        dies = _submitted(client, {"message": "x", "permanent": True})
        eventually(lambda: _task(client, climbs)["status"] == "SUCCESS", 20, lambda: str(_task(client, climbs)))
        eventually(lambda: _task(client, dies)["status"] == "FAIL", 20, lambda: str(_task(client, dies)))

        redriven = _run(secured, "celery", "-A", "celery_app", "dlq", "redrive", dies)
        eventually(lambda: _task(client, dies)["cycle"] == 1, 20, lambda: str(_task(client, dies)))
        pong = _run(secured, "celery", "-A", "celery_app", "inspect", "ping", "--timeout", "5")
        verified = _run(secured, "celery", "-A", "celery_app", "topology", "verify")
        queues = _run(secured, "celery", "-A", "celery_app", "queues", "--json")

        assert redriven.returncode == pong.returncode == verified.returncode == queues.returncode == 0
        assert "pong" in pong.stdout
        assert "Traceback" not in worker.text()


def test_flower_reads_events_and_queues_over_tls(secured, tmp_path):
    port, log = free_port(), tmp_path / "flower.log"
    words = ["-A", "celery_app", "flower", f"--conf={processes.ROOT / 'flowerconfig.py'}", f"--port={port}"]
    names = sorted(queue.name for queue in topology.broker_map(secured).queues if ".delay." not in queue.name)
    log.touch()
    process = processes.start("celery", words, environ=environment(secured), output=processes.Output(log, log))

    def lengths():
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/api/queues/length", trust_env=False, timeout=5)
        except httpx.TransportError:
            return None
        return sorted(queue["name"] for queue in answer.json()["active_queues"]) if answer.is_success else None

    try:
        assert eventually(lengths, 20, log.read_text) == names
        eventually(lambda: "Connected to amqps://" in log.read_text(), 10, log.read_text)
        assert "guest:guest" not in log.read_text()
    finally:
        process.kill()
        process.wait()


def test_a_client_without_a_certificate_is_refused(secured):
    bare = {f"broker_tls_{part}": "" for part in ("cert", "key")}
    alone = secured.model_copy(update=bare)

    with pytest.raises(provision.BrokerUnreachable):
        provision.declare_at(alone.address("admin"), topology.broker_map(alone), alone)
    with pytest.raises(ManagementUnavailable, match=r"TLS failed: .*certificate required"), Management(alone) as api:
        api.version()


def _submitted(client, payload):
    answer = client.post("/v1/tasks", json={"type": "echo", "payload": payload})
    assert answer.status_code == 202, answer.text
    return answer.get_json()["taskId"]


def _task(client, task_id):
    return client.get(f"/v1/tasks/{task_id}").get_json()


def _run(settings, *words):
    return processes.run(words[0], words[1:], environ=environment(settings))
