"""The chart's pods as plain processes on a real RabbitMQ and Redis: their commands, variables, users and rights are enough."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from dispatch.config import api_keys as keys
from support import chart as charts
from support import deploy
from support import servers as shared
from support.ports import free_port
from support.waiting import eventually

#: One lane beside the default one: the rights then name two work queues.
LANES = ("--set", "lanes.bulk={echo}")


class Release:
    """What the chart renders, with other addresses.

    Args:
        servers: instead of the pods of RabbitMQ and Redis.
        directory: instead of the mounted files.
    """

    def __init__(self, servers, directory):
        self.servers, self.directory = servers, directory
        self.vhost = shared.unique("chart")
        self.objects = charts.rendered("default", *LANES, "--set", f"rabbitmq.vhost={self.vhost}")
        self.pods = charts.pods(self.objects)
        self.port = {"gateway": free_port(), "metrics": free_port()}
        self.key = keys.token("fleet-a", keys.new_secret())
        entry = keys.ApiKey(
            "fleet-a", keys.digest("robot-dispatch-api-keys-pepper", self.key), keys.scopes("+".join(keys.SCOPES))
        )
        (directory / "api-keys").mkdir()
        (directory / "api-keys" / "api-keys").write_text(f"{entry}\n")
        self._moved = {
            "robot-dispatch-rabbitmq.robot-dispatch.svc:15672": servers.management_url.rpartition("@")[2].rstrip("/"),
            "robot-dispatch-rabbitmq.robot-dispatch.svc:5672": servers.amqp_url.rpartition("@")[2],
            "/etc/robot-dispatch": str(directory),
            "0.0.0.0": "127.0.0.1",
        }

    def user(self, secret):
        """RabbitMQ's users are of all vhosts: one of this test."""
        return f"{self.vhost}-{charts.role(secret)}"

    def operate(self):
        """Do what the messaging topology operator does with the custom resources."""
        with self.servers.management() as api:
            for made in charts.of_kind(self.objects, "Vhost"):
                api.put(f"/api/vhosts/{made['spec']['name']}").raise_for_status()
            for made in charts.of_kind(self.objects, "User"):
                secret = made["spec"]["importCredentialsSecret"]["name"]
                body = {"password": f"{secret}-password", "tags": ",".join(made["spec"].get("tags", ()))}
                api.put(f"/api/users/{self.user(secret)}", json=body).raise_for_status()
            for kind, path in (("Permission", "permissions"), ("TopicPermission", "topic-permissions")):
                for made in charts.of_kind(self.objects, kind):
                    user = self.user(made["spec"]["userReference"]["name"])
                    body = made["spec"]["permissions"]
                    api.put(f"/api/{path}/{made['spec']['vhost']}/{user}", json=body).raise_for_status()

    def remove(self):
        """Delete what `operate` has made."""
        with self.servers.management() as api:
            for made in charts.of_kind(self.objects, "User"):
                api.delete(f"/api/users/{self.user(made['spec']['importCredentialsSecret']['name'])}")
        self.servers.delete_vhost(self.vhost)
        self.servers.delete_keys(f"{self.vhost}:")

    def environ(self, name):
        """The variables of a pod's process."""
        found = charts.variables(self.pods[name]["spec"]["containers"][0], self.user)
        for there, here in self._moved.items():
            found = {key: value.replace(there, here) for key, value in found.items()}
        own = {
            "DISPATCH_REDIS_URL": self.servers.redis_url,
            "DISPATCH_HTTP_PORT": str(self.port["gateway"]),
            "DISPATCH_WORKER_METRICS_PORT": str(self.port["metrics"]),
        }
        found.update({key: value for key, value in own.items() if key in found})
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": "/nonexistent",
            "DISPATCH_REDIS_PREFIX": f"{self.vhost}:",
            **found,
        }

    def run(self, name, *words):
        """Run a pod's command, or another one in it, to its end."""
        command = words or charts.arguments(self.pods[name]["spec"]["containers"][0])
        return subprocess.run(
            command, cwd=deploy.ROOT, env=self.environ(name), capture_output=True, text=True, timeout=60, check=False
        )

    @contextlib.contextmanager
    def running(self, name):
        """A pod's process, stopped as the kubelet stops it."""
        pod, log = self.pods[name]["spec"], self.directory / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                charts.arguments(pod["containers"][0]),
                cwd=deploy.ROOT,
                env=self.environ(name),
                stdout=output,
                stderr=output,
            )
        try:
            yield log
        finally:
            process.terminate()
            try:
                process.wait(pod["terminationGracePeriodSeconds"])
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise

    def asked(self, name, probe):
        """Whether a probe passes."""
        container = self.pods[name]["spec"]["containers"][0]
        port = self.port["gateway" if container["name"] == "gateway" else "metrics"]
        try:
            answer = httpx.get(
                f"http://127.0.0.1:{port}{container[probe]['httpGet']['path']}", timeout=5, trust_env=False
            )
        except httpx.TransportError:
            return False
        return answer.status_code == 200


@pytest.fixture(scope="module")
def release(servers, tmp_path_factory):
    directory = tmp_path_factory.mktemp("release")
    made = Release(servers, directory)
    made.operate()
    try:
        applied = made.run("robot-dispatch-topology")
        assert applied.returncode == 0, applied.stderr
        with contextlib.ExitStack() as stack:
            for name in ("robot-dispatch-worker-default", "robot-dispatch-gateway"):
                log = stack.enter_context(made.running(name))
                eventually(
                    lambda name=name: made.asked(name, "readinessProbe"), 60, lambda log=log: log.read_text()[-3_000:]
                )
            yield made
    finally:
        made.remove()


@pytest.fixture
def api(release):
    headers = {"Authorization": f"Bearer {release.key}"}
    base_url = f"http://127.0.0.1:{release.port['gateway']}"
    with httpx.Client(base_url=base_url, headers=headers, timeout=10, trust_env=False) as client:
        yield client


def finished(api, type, payload, **options):
    answer = api.post("/v1/tasks", json={"type": type, "payload": payload, "options": options})
    assert answer.status_code == 202, answer.text
    url = answer.json()["statusUrl"]
    return eventually(
        lambda: (record := api.get(url).json())["status"] in {"SUCCESS", "FAIL"} and record, 30, "the task ends"
    )


def test_a_task_runs_in_its_lane_and_a_delayed_one_too(api):
    assert finished(api, "echo", {"message": "x"})["status"] == "SUCCESS"
    assert finished(api, "echo", {"message": "x"}, delaySeconds=1)["status"] == "SUCCESS"


def test_what_cannot_be_done_is_in_the_dlq_and_is_redriven(release, api):
    record = finished(api, "http.request", {"method": "GET", "url": "http://example.invalid/"})
    # A pod's shell has its process's variables.
    listed = release.run("robot-dispatch-worker-default", "celery", "-A", "celery_app", "dlq", "list", "--json")
    redriven = api.post(f"/v1/dead-letters/{record['taskId']}/redrive", json={})

    assert record["state"] == "DEAD_LETTERED"
    assert record["taskId"] in listed.stdout, listed.stderr
    assert redriven.status_code == 202, redriven.text


def test_the_map_does_not_drift_and_a_second_job_changes_nothing(release):
    again = release.run("robot-dispatch-topology")
    verified = release.run("robot-dispatch-worker-default", "celery", "-A", "celery_app", "topology", "verify")

    assert (again.returncode, again.stdout) == (0, "Nothing to do: the broker matches the map.\n"), again.stderr
    assert (verified.returncode, verified.stdout) == (0, "No drift.\n"), verified.stderr


def test_every_probe_passes(release):
    for name in ("robot-dispatch-gateway", "robot-dispatch-worker-default"):
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert release.asked(name, probe), (name, probe)


def test_keda_may_read_the_depth_of_every_queue_that_it_scales_by(release):
    (scaler,) = charts.of_kind(release.objects, "ScaledObject")
    (secret,) = {
        each["name"] for each in charts.of_kind(release.objects, "TriggerAuthentication")[0]["spec"]["secretTargetRef"]
    }
    watched = [each["metadata"] for each in scaler["spec"]["triggers"] if each["type"] == "rabbitmq"]
    base = f"http://{release.servers.management_url.rpartition('@')[2]}"
    answers = {
        each["queueName"]: httpx.get(
            f"{base}/api/queues/{each['vhostName']}/{each['queueName']}",
            auth=(release.user(secret), f"{secret}-password"),
            trust_env=False,
        )
        for each in watched
    }

    assert answers.keys() == {"robot.task.q", "robot.task.q.bulk"}
    assert {answer.status_code for answer in answers.values()} == {200}
    # RabbitMQ's statistics come some seconds after a queue's declaration; KEDA's own reading takes their absence for 0.
    assert all(isinstance(answer.json().get("messages", 0), int) for answer in answers.values())


def test_the_age_that_keda_scales_by_is_in_a_workers_metrics(release):
    def exported():
        text = httpx.get(f"http://127.0.0.1:{release.port['metrics']}/metrics", trust_env=False).text
        return 'robot_queue_oldest_message_age_seconds{queue="robot.task.q"}' in text

    eventually(exported, 20, "the queue's age is exported")


def test_a_worker_stops_within_its_grace(servers, release, tmp_path_factory):
    other = Release(servers, tmp_path_factory.mktemp("other"))
    other.vhost, other.objects, other.pods = release.vhost, release.objects, release.pods
    with other.running("robot-dispatch-worker-default") as log:
        eventually(
            lambda: other.asked("robot-dispatch-worker-default", "livenessProbe"), 60, lambda: log.read_text()[-3_000:]
        )
        began = time.monotonic()

    assert time.monotonic() - began < 30
