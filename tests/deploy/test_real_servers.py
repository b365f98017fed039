"""The compose file without containers: its commands, users, configuration files and health-checks on real servers."""

import httpx
import pytest

from support import uncontained
from support.waiting import eventually


@pytest.fixture(scope="module")
def system():
    with uncontained.running() as found:
        yield found


@pytest.fixture
def api(system):
    headers = {"Authorization": f"Bearer {system.key}"}
    base_url = f"http://127.0.0.1:{system.port['gateway']}"
    with httpx.Client(base_url=base_url, headers=headers, timeout=10, trust_env=False) as client:
        yield client


def finished(api, type, payload):
    """A task's last record."""
    answer = api.post("/v1/tasks", json={"type": type, "payload": payload})
    assert answer.status_code == 202, answer.text
    url = answer.json()["statusUrl"]
    return eventually(
        lambda: (record := api.get(url).json())["status"] in {"SUCCESS", "FAIL"} and record, 30, "the task ends"
    )


@pytest.mark.parametrize("service", ["gateway", "worker", "flower"])
def test_the_health_checks_pass(system, service):
    # Compose asks again, too, before it takes a service for unhealthy.
    eventually(lambda: system.healthy(service), 20, lambda: system.log(service)[-2_000:])


def test_a_task_runs_with_the_least_privilege_users(api):
    assert finished(api, "echo", {"message": "hello"})["status"] == "SUCCESS"


def test_what_cannot_be_done_is_written_to_the_dlq_and_is_seen_by_the_operator(system, api):
    record = finished(api, "http.request", {"method": "GET", "url": "http://example.invalid/"})

    listed = system.run("worker", "celery", "-A", "celery_app", "dlq", "list", "--json")

    assert (record["status"], record["state"]) == ("FAIL", "DEAD_LETTERED")
    assert record["taskId"] in listed.stdout, listed.stderr


def test_a_request_without_a_key_is_refused(system):
    answer = httpx.get(f"http://127.0.0.1:{system.port['gateway']}/v1/tasks", trust_env=False)

    assert answer.status_code == 401


def test_the_loaded_definitions_are_the_map(system):
    verified = system.run("admin")

    assert (verified.returncode, verified.stdout) == (0, "No drift.\n"), verified.stderr


def test_rabbitmq_has_no_guest_and_goes_by_the_containers_memory(system):
    base_url = f"http://127.0.0.1:{system.port['management']}"

    guest = httpx.get(f"{base_url}/api/whoami", auth=("guest", "guest"), trust_env=False)

    def measured():  # a node's first figures come some seconds after its start
        auth = ("monitor", "rabbitmq_monitor_password")
        (node,) = httpx.get(f"{base_url}/api/nodes", auth=auth, trust_env=False).json()
        return node if "mem_limit" in node else None

    node = eventually(measured, 30, "the node has figures")

    assert guest.status_code == 401
    assert node["mem_limit"] == pytest.approx(0.6 * 2**30, rel=0.01)
    assert {"rabbitmq_management", "rabbitmq_prometheus"} <= set(node["enabled_plugins"])


def test_rabbitmqs_own_metrics_are_there(system):
    answer = httpx.get(f"http://127.0.0.1:{system.port['metrics']}/metrics", trust_env=False)

    assert "rabbitmq_queue_messages_ready" in answer.text


def test_redis_asks_for_the_password_and_evicts_nothing(system):
    options = ["-p", str(system.port["redis"])]

    asked = system.run("redis", "redis-cli", *options, "config", "get", "maxmemory-policy")
    durable = system.run("redis", "redis-cli", *options, "config", "get", "appendonly")
    stranger = system.run("redis", "env", "-u", "REDISCLI_AUTH", "redis-cli", *options, "ping")

    assert asked.stdout.split() == ["maxmemory-policy", "noeviction"]
    assert durable.stdout.split() == ["appendonly", "yes"]
    assert "NOAUTH" in stranger.stdout


def test_flower_requires_its_password_and_shows_no_buttons(system):
    base_url = f"http://127.0.0.1:{system.port['flower']}"

    stranger = httpx.get(f"{base_url}/workers", trust_env=False)
    shutdown = httpx.post(f"{base_url}/api/worker/shutdown/any", auth=("operator", "secret"), trust_env=False)

    assert stranger.status_code == 401
    assert shutdown.status_code == 403
