"""What clients of a gateway read, and what its log has, while a server refuses it: the kind of reason, and all of it."""

import itertools

import structlog.testing
from pydantic import SecretStr

from dispatch.telemetry import logs
from support import redises
from support.gateway_fakes import problem
from support.gateway_live import gateway
from support.waiting import eventually

BODY = {"type": "echo", "payload": {"message": "hi"}}


def test_refused_rights_and_a_missing_vhost_are_503_with_the_kind_of_reason_and_all_of_it_in_the_log_once(settings):
    logs.configure("gateway")  # or the gateway would, and end the capture
    nowhere = f"{settings.broker('gateway').rpartition('/')[0]}/no-such-vhost"
    with redises.single() as redis, redis.client() as admin:
        admin.execute_command(
            "ACL", "SETUSER", "herbert", "on", ">hush-pw", "~*", "&*", "+@all", "-evalsha", "-eval", "-set"
        )
        url = f"redis://herbert:hush-pw@127.0.0.1:{redis.port}/0"
        own = settings.model_copy(
            update={"redis_url": SecretStr(url), "gateway_broker_url": SecretStr(nowhere), "apply_topology": False}
        )
        with structlog.testing.capture_logs() as lines, gateway(own, ready=False) as client:
            ready = eventually(lambda: _both(client), 15, lambda: client.get("/readyz").text)
            answers = [client.post("/v1/tasks", json=BODY) for _ in range(3)]
            admin.execute_command("ACL", "SETUSER", "herbert", "+@all")
            relieved = eventually(lambda: _store_ok(client), 15, lambda: client.get("/readyz").text)
            refused = eventually(lambda: _refused_by_broker(client), 10)
    details = {name: check["detail"] for name, check in ready["checks"].items()}
    logged = [(line["event"], line["reason"]) for line in lines if line.get("reason") and line["event"] in _EVENTS]

    assert details == {"broker": "RabbitMQ: its vhost does not exist", "store": "Redis: its user lacks a right"}
    assert ready["detail"] == "Redis: its user lacks a right; RabbitMQ: its vhost does not exist"
    assert [problem(answer, 503, "store-unavailable")["status"] for answer in answers] == [503] * 3
    assert relieved["checks"]["store"] == {"ok": True, "detail": "ok"}
    problem(refused, 503, "broker-unavailable")
    assert set(logged) >= {
        ("Redis refuses", "its user lacks a right"),
        ("no connection to RabbitMQ", "its vhost does not exist"),
        ("reading the work queue depth failed: the 429 guard admits all tasks", "its vhost does not exist"),
    }
    for event in _EVENTS[2:]:  # a line for each change, which a busy machine may add
        reasons = [reason for other, reason in logged if other == event]
        assert all(first != second for first, second in itertools.pairwise(reasons))
    for secret in ("hush", "herbert", "no-such-vhost", "127.0.0.1"):
        assert secret not in f"{ready} {relieved} {[answer.text for answer in (*answers, refused)]}"
    assert "hush" not in str(lines)
    assert any(line.get("where") == f"herbert@127.0.0.1:{redis.port}/0" for line in lines)


_EVENTS = (
    "Redis refuses",
    "no connection to Redis",
    "no connection to RabbitMQ",
    "reading the work queue depth failed: the 429 guard admits all tasks",
)


def _both(client):
    body = client.get("/readyz").get_json()
    known = all("vhost" in check["detail"] or "right" in check["detail"] for check in body["checks"].values())
    return body if known else None


def _refused_by_broker(client):
    answer = client.post("/v1/tasks", json=BODY)
    return answer if answer.get_json()["type"].endswith("broker-unavailable") else None


def _store_ok(client):
    body = client.get("/readyz").get_json()
    return body if body["checks"]["store"]["ok"] else None
