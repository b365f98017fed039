"""``make up`` and its sisters on real servers, from the command line."""

import contextlib
import os
import re
import signal
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
    servers = {"DISPATCH_BROKER_URL", "DISPATCH_MANAGEMENT_URL", "DISPATCH_REDIS_URL"}

    assert {name for name in stack.env if not name.startswith("DISPATCH_")} == {
        "RABBITMQ_PID",
        "REDIS_PID",
        "SUPERVISOR_PID",
    }
    assert all(stack.env[name] for name in servers)
    assert stack.env["DISPATCH_LADDER"] == "1m=60,5m=300,30m=1800"  # what has its default, too
    assert stack.env["DISPATCH_MESSAGE_KEYS"] == ""
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


def test_up_on_a_running_stack_reports_it_and_changes_nothing(stack):
    before, start = stack.env, time.monotonic()
    output = stack.command("servers")

    assert "already running: epmd, rabbitmq, redis" in output
    assert stack.env == before
    assert time.monotonic() - start < 5


def test_up_with_the_env_file_sourced_still_means_its_own_servers(stack):
    output = stack.command("servers", **stack.env)

    assert output.startswith("already running: epmd, rabbitmq, redis")


def test_up_with_other_settings_warns_that_running_processes_keep_theirs(stack):
    output = stack.command("servers", DISPATCH_LADDER="1m=1")

    assert "the stack was started with other settings (DISPATCH_LADDER)" in output
    assert "make down && make up" in output


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
    output = other.command("servers", **given)

    assert "RabbitMQ: using amqp://guest:…@127.0.0.1" in output
    assert "Redis: using redis://127.0.0.1" in output
    assert {**other.env, **given} == other.env
    assert [name for name in other.env if name.endswith("_PID")] == ["SUPERVISOR_PID"]
    assert other.processes() == [other.pid("SUPERVISOR")]


def test_another_ladder_gets_data_of_its_own_and_the_first_keeps_its(other):
    ladders = ({}, {"DISPATCH_LADDER": "1m=1, 5m=2"}, {})
    outputs, keys, ladders_used = [], [], []
    for ladder in ladders:
        outputs.append(other.command("up", "--only", "redis", **ladder))
        ladders_used.append(other.env.get("DISPATCH_LADDER"))
        with cache(other) as client:
            keys.append(client.get("written"))
            client.set("written", "in the first" if not ladder else "in the second")
        other.command("down")

    assert ["new ladder or RabbitMQ release" in text for text in outputs] == [False, True, False]
    assert keys == [None, None, "in the first"]
    assert ladders_used == ["1m=60,5m=300,30m=1800", "1m=1,5m=2", "1m=60,5m=300,30m=1800"]
    assert "robot.retry.q.1m waits 60 s there, and 1 s in these settings" in outputs[1]


def test_status_shows_a_server_that_runs_and_does_not_answer(stack):
    os.kill(stack.pid("REDIS"), signal.SIGSTOP)
    try:
        output = stack.command("status", expect=1)
    finally:
        os.kill(stack.pid("REDIS"), signal.SIGCONT)

    assert "redis     not ready" in output
    assert re.search(r"redis is not ready: Redis at 127\.0\.0\.1:\d+/0: it did not answer in time", output)
    assert "rabbitmq  ready" in output


def test_restart_names_settings_that_have_no_effect(stack):
    sourced = stack.command("restart", "simulator", **stack.env)  # which does not run
    other_ladder = stack.command("restart", "simulator", DISPATCH_LADDER="1m=1")
    given = {name: value for name, value in stack.environ.items() if not name.startswith("DISPATCH_")}
    bare = stacks.Stack(stack.run_dir, {**given, "DISPATCH_RUN_DIR": str(stack.run_dir)}).command(
        "restart", "simulator"
    )

    assert "other settings" not in sourced + bare
    assert "the stack was started with other settings (DISPATCH_LADDER): its processes keep them" in other_ladder


def test_a_named_broker_without_its_vhost_is_refused(stack, other):
    url = stack.env["DISPATCH_BROKER_URL"].removesuffix("robot") + "nowhere"
    output = other.command("servers", DISPATCH_BROKER_URL=url, expect=1)

    assert "its vhost does not exist" in output
    assert "guest:guest" not in output
    assert other.processes() == []


def test_missing_servers_are_one_clear_line(other):
    output = other.command("up", PATH="/nonexistent", expect=1)

    assert output.startswith("rabbitmq-server and redis-server not found: install them (Debian, Ubuntu: sudo apt-get")
    assert output.count("\n") == 1
    assert other.processes() == []


def test_a_wrong_setting_is_refused_before_anything_starts(other):
    output = other.command("up", DISPATCH_LADER="1m=1", expect=1)

    assert output == "DISPATCH_LADER: no such setting; did you mean DISPATCH_LADDER?\n"
    assert other.processes() == []


def test_a_port_that_was_asked_for_and_is_taken_is_refused(stack, other):
    taken = str(urlsplit(stack.env["DISPATCH_REDIS_URL"]).port)
    output = other.command("servers", DISPATCH_REDIS_PORT=taken, expect=1)

    assert output == f"port {taken} for redis is taken on 127.0.0.1\n"
    assert other.processes() == []


def test_a_process_that_cannot_start_ends_up_with_the_last_lines_of_its_log(other):
    other.command("up", "--only", "redis")
    other.command("down")
    (manifest,) = other.run_dir.glob("data/*/redis/appendonlydir/*.manifest")
    manifest.write_text("nonsense")
    output = other.command("up", "--only", "redis", expect=1)

    assert "redis exited with status 1; the last lines of" in output
    assert "manifest" in output
    assert other.processes() == []


def test_up_clears_away_what_a_killed_supervisor_left_behind(stack):
    before = urls(stack)
    old = stack.kill("SUPERVISOR")
    eventually(lambda: old not in stack.processes())

    assert "the supervisor is dead; these processes remain" in stack.status()

    output = stack.command("servers")

    assert "rabbitmq   was left behind" in output
    assert urls(stack) == before
    assert stack.pid("SUPERVISOR") != old
    eventually(lambda: depth(stack) == 1, 10, "the message is not there")


def test_down_leaves_nothing_running_and_may_be_repeated(stack):
    output = stack.command("down")

    assert [line.split()[:2] for line in output.splitlines()] == [
        ["redis", "stopped"],
        ["rabbitmq", "stopped"],
        ["epmd", "stopped"],
    ]
    assert stack.processes() == []
    assert stack.env == {}
    assert stack.command("down") == "nothing was running\n"
    assert "nothing is running" in stack.command("status", expect=3)
