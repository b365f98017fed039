"""What counts as a task's way, and which Lua files a script consists of."""

import hashlib

import pytest

from tools.call_recorder import Call
from tools.redis_monitor import RedisMonitor
from tools.task_way import Times, _files

TIMES = Times(idle=10, sent=20, accepted=21, over=22)
COMMON, CLAIM = "-- Shared.\nlocal now = 'T'\n", "-- Claims a run.\nreturn now .. '\\n\u00e9'\n"


def call(at, path="a.py", function="f", thread="1"):
    return Call(at, thread, path, f"{path}:{function}")


def digest(source):
    return hashlib.sha1(source.encode()).hexdigest()


@pytest.fixture
def monitor():
    return RedisMonitor("redis://127.0.0.1:1")


def test_a_call_between_post_and_end_is_on_the_way():
    assert _files([call(5), call(20.5)], TIMES, gateway=True) == ({"a.py"}, set())


def test_the_gateway_counts_until_its_answer_and_a_worker_until_the_ack():
    calls = [call(21.5)]

    assert _files(calls, TIMES, gateway=True) == (set(), set())
    assert _files(calls, TIMES, gateway=False) == ({"a.py"}, set())


def test_what_a_thread_also_calls_while_idle_is_background():
    assert _files([call(15), call(20.5)], TIMES, gateway=True) == (set(), {"a.py"})


def test_another_thread_or_another_function_of_a_busy_file_is_on_the_way():
    idle = call(15)

    assert _files([idle, call(20.5, thread="2")], TIMES, gateway=True) == ({"a.py"}, set())
    assert _files([idle, call(20.5), call(20.6, function="g")], TIMES, gateway=True) == ({"a.py"}, set())


def test_a_loaded_script_is_traced_to_its_files(monitor):
    source = COMMON + CLAIM
    escaped = source.replace("\\", "\\\\").replace("\n", "\\n").replace("\u00e9", "\\xc3\\xa9")
    monitor._note(f'1700000000.1 [0 127.0.0.1:5] "SCRIPT" "LOAD" "{escaped}"'.encode())

    assert monitor.names({"common": COMMON, "claim": CLAIM, "other": "return 1"}) == {
        digest(source): ["claim", "common"]
    }


def test_each_run_of_a_script_is_noted_by_its_digest(monitor):
    monitor._note(b'1700000000.1 [0 127.0.0.1:5] "EVALSHA" "ABC" "1" "key"')
    monitor._note(b'1700000000.2 [0 127.0.0.1:5] "GET" "EVALSHA"')
    monitor._note(b'1700000000.3 [0 127.0.0.1:5] "eval" "return 1" "0"')
    monitor._note(b"OK")

    assert [sha for _, sha in monitor.runs()] == ["abc", digest("return 1")]
