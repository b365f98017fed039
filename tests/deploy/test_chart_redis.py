"""The chart's Redis as its container starts it, on a real server: its users, their rights, what it keeps."""

import functools
import os
import subprocess

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from support import chart as charts
from support.ports import free_port
from support.waiting import eventually

PASSWORDS = {"REDISCLI_AUTH": "admin1", "GATEWAY_PASSWORD": "gateway1", "WORKER_PASSWORD": "worker1"}


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """A Redis that the StatefulSet's command has started, with its directories here and on loopback alone."""
    where = tmp_path_factory.mktemp("redis")
    container = charts.containers(charts.rendered())["robot-dispatch-redis"]
    files = charts.named(charts.rendered(), "ConfigMap", "redis")["data"]
    port = free_port()
    for name in ("etc", "data"):
        (where / name).mkdir()
    own = {"bind * -::*": f"bind 127.0.0.1\nport {port}", "dir /data": f"dir {where}/data"}
    for name, text in files.items():
        here = functools.reduce(lambda made, pair: made.replace(*pair), own.items(), text)
        (where / "etc" / name).write_text(here)
    shell, option, script = container["command"]
    script = script.replace("/etc/redis/", f"{where}/etc/").replace("/tmp/redis.conf", f"{where}/redis.conf")
    assert {each["name"] for each in container["env"]} == PASSWORDS.keys()
    process = subprocess.Popen(
        [shell, option, script], env={"PATH": os.environ["PATH"], **PASSWORDS}, stdout=subprocess.DEVNULL
    )
    try:
        eventually(lambda: client(port, "gateway", "gateway1").ping(), 30, "Redis answers")
        yield port
    finally:
        process.terminate()
        process.wait(30)


def client(port, user, password):
    return redis.Redis(host="127.0.0.1", port=port, username=user, password=password, retry=Retry(NoBackoff(), 0))


def test_a_process_has_its_user_with_its_rights_and_no_more(port):
    for user in ("gateway", "worker"):
        with client(port, user, f"{user}1") as connected:
            assert connected.set(f"robot:{user}", "x")
            with pytest.raises(redis.exceptions.NoPermissionError):
                connected.flushall()
            with pytest.raises(redis.exceptions.NoPermissionError):
                connected.get("other:x")


def test_a_password_is_needed(port):
    with pytest.raises(redis.exceptions.AuthenticationError), client(port, "gateway", "worker1") as connected:
        connected.ping()
    with pytest.raises(redis.exceptions.AuthenticationError), client(port, None, None) as connected:
        connected.ping()


def test_it_evicts_nothing_and_writes_an_append_only_file(port):
    with client(port, "default", "admin1") as connected:
        config = connected.config_get("*")

    assert config["maxmemory-policy"] == "noeviction"
    assert config["maxmemory"] == str(384 * 2**20)
    assert (config["appendonly"], config["appendfsync"]) == ("yes", "everysec")


def test_no_password_is_in_an_argument():
    container = charts.containers(charts.rendered())["robot-dispatch-redis"]

    assert container["command"][-1].rstrip().endswith("exec redis-server /tmp/redis.conf")
