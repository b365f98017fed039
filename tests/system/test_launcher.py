"""``make up`` and its sisters on real servers, from the command line."""

import contextlib
import os
import stat
import time
from urllib.parse import urlsplit

import amqp
import psutil
import pytest
import redis

from support import stack as stacks
from support.waiting import eventually

QUEUE = "kept"


@pytest.fixture(scope="module")
def stack():
    """RabbitMQ and Redis with one message and one key in them."""
    with stacks.running("servers") as stack:
        with channel(stack.env["DISPATCH_BROKER_URL"]) as wire:
            wire.queue_declare(QUEUE, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
            wire.confirm_select()
            wire.basic_publish_confirm(amqp.Message("letter", delivery_mode=2), routing_key=QUEUE)
        with cache(stack) as client:
            client.set("kept", "value")
        yield stack


@pytest.fixture
def other():
    """Another run directory."""
    another = stacks.make()
    yield another
    another.destroy()


@contextlib.contextmanager
def channel(url):
    parts = urlsplit(url)
    address = f"{parts.hostname}:{parts.port}"
    with amqp.Connection(address, parts.username, parts.password, virtual_host=parts.path[1:]) as connection:
        yield connection.channel()


@contextlib.contextmanager
def cache(stack):
    with redis.Redis.from_url(stack.env["DISPATCH_REDIS_URL"], decode_responses=True) as client:
        yield client


def depth(stack):
    with channel(stack.env["DISPATCH_BROKER_URL"]) as wire:
        return wire.queue_declare(QUEUE, passive=True).message_count


def urls(stack):
    return {key: value for key, value in stack.env.items() if not key.endswith("_PID")}


def test_the_env_file_names_urls_and_real_pids_for_its_owner_only(stack):
    assert set(stack.env) == {
        "DISPATCH_BROKER_URL",
        "DISPATCH_MANAGEMENT_URL",
        "DISPATCH_REDIS_URL",
        "RABBITMQ_PID",
        "REDIS_PID",
        "SUPERVISOR_PID",
    }
    assert psutil.Process(stack.pid("RABBITMQ")).name() == "beam.smp"
    assert psutil.Process(stack.pid("REDIS")).name() == "redis-server"
    assert stat.S_IMODE((stack.run_dir / "env").stat().st_mode) == 0o600


def test_the_servers_listen_on_loopback_only_and_touch_no_home(stack):
    listening = [
        connection.laddr.ip
        for pid in stack.processes()
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]

    assert set(listening) <= {"127.0.0.1", "::1"}
    assert len(list(stack.run_dir.glob("data/*/rabbitmq/.erlang.cookie"))) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start servers as their own users")
def test_servers_started_by_root_run_as_their_own_users(stack):
    assert psutil.Process(stack.pid("RABBITMQ")).username() == "rabbitmq"
    assert psutil.Process(stack.pid("REDIS")).username() == "redis"


def test_up_on_a_running_stack_says_so_and_changes_nothing(stack):
    before, start = stack.env, time.monotonic()
    said = stack.command("servers")

    assert "already running: epmd, rabbitmq, redis" in said
    assert stack.env == before
    assert time.monotonic() - start < 5


def test_up_with_the_env_file_sourced_still_means_its_own_servers(stack):
    said = stack.command("servers", **stack.env)

    assert said.startswith("already running: epmd, rabbitmq, redis")


def test_up_with_other_settings_says_that_running_processes_keep_theirs(stack):
    said = stack.command("servers", DISPATCH_LADDER="1m=1")

    assert "the stack was started with other settings (DISPATCH_LADDER)" in said
    assert "make down && make up" in said


def test_redis_killed_comes_back_with_its_port_and_data(stack):
    def durable():
        with cache(stack) as client:
            client.set("second", "value")
            return client.info("persistence")["aof_pending_bio_fsync"] == 0

    before = urls(stack)
    eventually(durable)
    stack.kill_and_see_back("REDIS")

    assert urls(stack) == before
    with cache(stack) as client:
        assert client.get("kept") == "value"
    assert "redis was restarted 1 times; the process last was terminated by SIGKILL" in stack.status()


def test_rabbitmq_killed_comes_back_with_its_port_and_data(stack):
    before = urls(stack)
    stack.kill_and_see_back("RABBITMQ")

    assert urls(stack) == before
    eventually(lambda: depth(stack) == 1, 10, "the message is not there")


def test_a_second_run_directory_has_servers_of_its_own(stack, other):
    other.command("up", "--only", "redis")

    assert other.env["DISPATCH_REDIS_URL"] != stack.env["DISPATCH_REDIS_URL"]
    with cache(other) as client:
        assert client.get("kept") is None

    other.command("down")

    assert other.processes() == []
    assert psutil.pid_exists(stack.pid("REDIS"))


def test_servers_named_in_the_environment_are_used_and_none_is_started(stack, other):
    names = ("DISPATCH_BROKER_URL", "DISPATCH_MANAGEMENT_URL", "DISPATCH_REDIS_URL")
    given = {name: stack.env[name] for name in names}
    said = other.command("servers", **given)

    assert "RabbitMQ: using amqp://guest:…@127.0.0.1" in said
    assert "Redis: using redis://127.0.0.1" in said
    assert other.env == {**given, "SUPERVISOR_PID": other.env["SUPERVISOR_PID"]}
    assert other.processes() == [other.pid("SUPERVISOR")]


def test_another_ladder_gets_data_of_its_own_and_the_first_keeps_its(other):
    ladders = ({}, {"DISPATCH_LADDER": "1m=1, 5m=2"}, {})
    said, keys, told = [], [], []
    for ladder in ladders:
        said.append(other.command("up", "--only", "redis", **ladder))
        told.append(other.env.get("DISPATCH_LADDER"))
        with cache(other) as client:
            keys.append(client.get("written"))
            client.set("written", "in the first" if not ladder else "in the second")
        other.command("down")

    assert ["new ladder or RabbitMQ release" in text for text in said] == [False, True, False]
    assert keys == [None, None, "in the first"]
    assert told == [None, "1m=1,5m=2", None]


def test_a_named_broker_without_its_vhost_is_refused(stack, other):
    url = stack.env["DISPATCH_BROKER_URL"].removesuffix("robot") + "nowhere"
    said = other.command("servers", DISPATCH_BROKER_URL=url, expect=1)

    assert "does not respond, or has no such vhost" in said
    assert "guest:guest" not in said
    assert other.processes() == []


def test_missing_servers_are_one_clear_line(other):
    said = other.command("up", PATH="/nonexistent", expect=1)

    assert said.startswith("rabbitmq-server and redis-server not found: install them (apt-get install")
    assert said.count("\n") == 1
    assert other.processes() == []


def test_a_wrong_setting_is_refused_before_anything_starts(other):
    said = other.command("up", DISPATCH_LADER="1m=1", expect=1)

    assert said == "DISPATCH_LADER: no such setting; did you mean DISPATCH_LADDER?\n"
    assert other.processes() == []


def test_a_port_that_was_asked_for_and_is_taken_is_refused(stack, other):
    taken = str(urlsplit(stack.env["DISPATCH_REDIS_URL"]).port)
    said = other.command("servers", DISPATCH_REDIS_PORT=taken, expect=1)

    assert said == f"port {taken} for redis is taken on 127.0.0.1\n"
    assert other.processes() == []


def test_a_process_that_cannot_start_ends_up_with_the_last_lines_of_its_log(other):
    other.command("up", "--only", "redis")
    other.command("down")
    (manifest,) = other.run_dir.glob("data/*/redis/appendonlydir/*.manifest")
    manifest.write_text("nonsense")
    said = other.command("up", "--only", "redis", expect=1)

    assert "redis exited with status 1; the last lines of" in said
    assert "manifest" in said
    assert other.processes() == []


def test_up_clears_away_what_a_killed_supervisor_left_behind(stack):
    before = urls(stack)
    old = stack.kill("SUPERVISOR")
    eventually(lambda: old not in stack.processes())

    assert "the supervisor is dead; these processes remain" in stack.status()

    said = stack.command("servers")

    assert "rabbitmq   was left behind" in said
    assert urls(stack) == before
    assert stack.pid("SUPERVISOR") != old
    eventually(lambda: depth(stack) == 1, 10, "the message is not there")


def test_down_leaves_nothing_running_and_may_be_repeated(stack):
    said = stack.command("down")

    assert [line.split()[:2] for line in said.splitlines()] == [
        ["redis", "stopped"],
        ["rabbitmq", "stopped"],
        ["epmd", "stopped"],
    ]
    assert stack.processes() == []
    assert stack.env == {}
    assert stack.command("down") == "nothing was running\n"
    assert "nothing is running" in stack.command("status", expect=3)
