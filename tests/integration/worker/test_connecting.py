"""A worker whose servers refuse it: it waits with rising pauses, has the reason in its log once, and goes on by itself."""

import json
import os
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from pydantic import SecretStr

from dispatch.protocol.record import State
from support import processes, redises
from support.servers import unique
from support.waiting import eventually
from support.worker import environment, open_bench

USER, OLD, NEW = unique("worker"), "hush-old", "hush-new"


@pytest.fixture(scope="module")
def user(servers, module_settings):
    """A broker URL with a password that the user has not yet, and a function that gives it to the user."""
    parts = urlsplit(module_settings.broker("admin"))
    everything = {"configure": ".*", "write": ".*", "read": ".*"}

    def password(new):
        with servers.management() as api:
            api.put(f"/api/users/{USER}", json={"password": new, "tags": ""}).raise_for_status()

    password(OLD)
    with servers.management() as api:
        api.put(f"/api/permissions/{parts.path[1:]}/{USER}", json=everything).raise_for_status()
    place = parts.netloc.rpartition("@")[2]
    yield urlunsplit(parts._replace(netloc=f"{USER}:{NEW}@{place}")), lambda: password(NEW)
    with servers.management() as api:
        api.delete(f"/api/users/{USER}").raise_for_status()


def _start(settings, log):
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    words = ["-A", "celery_app", "worker", "-l", "INFO", "--autoscale=2,1", "-n", f"{unique('w')}@test"]
    variables = {**environment(settings), "REMAP_SIGTERM": "SIGQUIT"}
    return processes.start("celery", words, environ=variables, output=processes.Output(log, log))


def _events(log: Path, event: str) -> list[dict]:
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def test_a_worker_that_its_servers_refuse_waits_with_the_reason_and_goes_on_by_itself(module_settings, user, tmp_path):
    url, admit = user
    log = tmp_path / "worker.log"
    with redises.single() as redis, redis.client() as admin:
        settings = module_settings.model_copy(update={"redis_url": SecretStr(redis.url)})
        refused = settings.model_copy(update={"worker_broker_url": SecretStr(url)})
        with open_bench(settings) as bench:
            process = _start(refused, log)
            try:
                eventually(lambda: _events(log, "no connection to RabbitMQ"), 30, log.read_text)
                admit()
                eventually(lambda: " ready." in log.read_text(), 30, log.read_text)
                admin.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval")
                held = _submitted(bench, admin)
                eventually(lambda: _events(log, "held: Redis did not take the claim"), 20, log.read_text)
                admin.execute_command("ACL", "SETUSER", "default", "+@all")
                record = bench.finished(held, 30)
            finally:
                process.kill()
                process.wait()
    text = log.read_text()
    reasons = [line["reason"] for line in _events(log, "no connection to RabbitMQ")]
    held_for = [line["reason"] for line in _events(log, "held: Redis did not take the claim")]

    assert record.state is State.SUCCEEDED
    assert "it does not accept this user and password" in reasons
    assert len(reasons) < 10  # one for each client that a worker has, and not for each attempt
    assert len(held_for) == len(set(held_for))
    assert all(reason.startswith("Redis: its user lacks a right") for reason in held_for)
    assert "Traceback" not in text
    assert "Frequent restarts" not in text
    assert "hush" not in text


def _submitted(bench, admin):
    """Accepted over a connection whose user has all rights, since the default one has lost some."""
    admin.execute_command("ACL", "SETUSER", "gateway", "on", "nopass", "~*", "&*", "+@all")
    parts = urlsplit(bench.settings.redis_url.get_secret_value())
    own = bench.settings.model_copy(
        update={"redis_url": SecretStr(urlunsplit(parts._replace(netloc=f"gateway:x@{parts.netloc}")))}
    )
    with open_bench(own) as other:
        return other.submit("echo", {"message": "x"})


def test_a_worker_with_another_ladder_than_its_broker_ends_with_one_line(module_settings, tmp_path):
    log = tmp_path / "worker.log"
    with open_bench(module_settings):
        other = {**environment(module_settings), "DISPATCH_LADDER": "1m=1,5m=2,30m=9"}
        words = ["-A", "celery_app", "worker", "-n", f"{unique('w')}@test"]
        done = processes.run("celery", words, environ={**other, "DISPATCH_RUN_DIR": os.fspath(tmp_path)})
    log.write_text(done.stderr)
    (line,) = _events(log, "the worker can't work with this broker")

    assert done.returncode == 2
    assert "robot.retry.q.30m is there with other arguments" in line["reason"]
    assert "Traceback" not in done.stderr
