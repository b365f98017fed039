"""One Redis connection for all callers: answers reach their callers, whatever happens to the connection or to one of them."""

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr

from dispatch.config import network
from dispatch.errors import StoreError, StoreUnavailable
from dispatch.store.scripts import RedisHandle
from support.processes import Forked
from support.proxy import DOWN, Proxy
from support.waiting import eventually

CALLERS = 12
REFUSED = "connection refused: nothing listens at its port"


@contextlib.contextmanager
def shared(settings, url=None, timeout=5.0):
    own = settings.model_copy(update={"redis_url": SecretStr(url)}) if url else settings
    with contextlib.closing(RedisHandle(own, timeout=timeout, share=True)) as handle:
        yield handle


@pytest.fixture
def proxy(settings):
    with Proxy.to(settings.redis_url.get_secret_value()) as made:
        yield made


def attempt(call):
    """What a call returned, or why it failed."""
    try:
        return call()
    except StoreUnavailable as exc:
        return exc.trouble.reason


def test_each_of_many_callers_gets_its_own_answers_over_one_connection(settings, proxy):
    def own(caller):
        key = f"{settings.redis_prefix}{caller}"
        for number in range(40):
            large = f"{caller}-{number}-" + "x" * (200_000 if number % 20 == 0 else 10)
            found = handle.run(
                ("SET", key, large), ("GET", key), ("INCRBYFLOAT", f"{key}-sum", 0.5), ("HGETALL", "none")
            )
            assert found[1] == large
            assert float(found[2]) == (number + 1) / 2
            assert found[3] == {}
            with pytest.raises(StoreError):
                handle.run(("LPUSH", key, "x"))  # an error is that of one caller

    with shared(settings, proxy.url) as handle, ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(own, range(CALLERS)))

    assert proxy.accepted == 1


def test_scripts_that_redis_has_lost_go_along_again_and_nothing_is_done_twice(settings):
    with shared(settings) as handle:
        key = f"{settings.redis_prefix}counted"
        handle.run(("SCRIPT", "FLUSH"))
        answers = handle.run(("INCR", key), handle.script("vital", [key], "INCR"), ("INCR", key))

        assert sorted(answers) == [1, 2, 3]
        assert handle.run(("GET", key)) == ["3"]


def test_a_silence_fails_all_who_wait_once_and_no_late_answer_is_taken_for_another(settings, proxy):
    with shared(settings, proxy.url, timeout=0.5) as handle, ThreadPoolExecutor(CALLERS) as pool:
        eventually(lambda: attempt(lambda: handle.run(("PING",))) == [True], 10, "Redis answers")
        proxy.hold(DOWN)
        key = f"{settings.redis_prefix}counted"
        calls = [pool.submit(attempt, lambda: handle.run(("INCR", key))) for _ in range(CALLERS)]

        assert {call.result(30) for call in calls} == {network.SILENT}

        proxy.release()

        assert eventually(lambda: answered(handle), 10, "Redis answers again") == ["new"]
        assert int(handle.run(("GET", key))[0]) <= CALLERS  # none has tried again


def test_a_redis_that_is_slower_than_its_callers_are_many_keeps_none_waiting_beyond_the_timeout(settings):
    nothing = f"{settings.redis_prefix}nothing"

    def timed():
        began = time.monotonic()
        return attempt(lambda: handle.run(("BLPOP", nothing, 0.3))), time.monotonic() - began

    with shared(settings, timeout=1.0) as handle, ThreadPoolExecutor(CALLERS) as pool:
        handle.run(("PING",))
        found = [call.result(60) for call in [pool.submit(timed) for _ in range(CALLERS)]]  # one after the other: 3.6 s

        assert eventually(lambda: answered(handle), 10, "the connection is as good as before") == ["new"]

    assert [None] in [answer for answer, _ in found]
    assert network.SILENT in [answer for answer, _ in found]
    assert max(seconds for _, seconds in found) < 3


def answered(handle):
    found = attempt(lambda: handle.run(("ECHO", "new")))
    return found if isinstance(found, list) else None


def test_a_connection_that_redis_has_closed_costs_no_caller_anything(settings, proxy):
    with shared(settings, proxy.url) as handle, ThreadPoolExecutor(CALLERS) as pool:
        handle.run(("PING",))
        proxy.cut()  # while none waits

        assert handle.run(("ECHO", "a")) == ["a"]

        proxy.hold(DOWN)
        calls = [pool.submit(handle.run, ("ECHO", str(at))) for at in range(CALLERS)]
        proxy.cut()  # while some wait
        proxy.release()

        assert [call.result(30) for call in calls] == [[str(at)] for at in range(CALLERS)]


def test_those_who_come_while_redis_refuses_connections_share_one_failure(settings, proxy):
    with shared(settings, proxy.url) as handle, ThreadPoolExecutor(CALLERS) as pool:
        proxy.refuse()
        calls = [pool.submit(attempt, lambda: handle.run(("PING",))) for _ in range(CALLERS)]
        assert {call.result(30) for call in calls} == {REFUSED}

        proxy.admit()

        assert eventually(lambda: answered(handle), 10, "Redis answers again") == ["new"]


def in_a_child(settings, report):
    with shared(settings) as handle:
        handle.run(("PING",))
        if (child := os.fork()) == 0:
            handle.run(("SET", report, os.getpid()))
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert (status, handle.run(("GET", report))) == (0, [str(child)])


def test_a_child_does_not_use_its_parents_connection(settings):
    assert Forked(in_a_child, settings, f"{settings.redis_prefix}child").wait(60) == 0


#: Ends greenlets at each stage of their wait, among them those that write and read for all others.
_ENDED = """
    from gevent import monkey; monkey.patch_all()
    import random, sys
    import gevent
    from dispatch.config.settings import load
    from dispatch.store.scripts import RedisHandle

    handle = RedisHandle(load(), timeout=20, share=True)
    handle.run(("PING",))
    random.seed(1)
    for turn in range(60):
        calls = [gevent.spawn(handle.run, ("ECHO", f"{turn}-{at}"), ("ECHO", "x" * 50_000)) for at in range(20)]
        for _ in range(turn % 4):
            gevent.sleep(0)
        ended = set(random.sample(range(20), 7)) | {0}
        for at in ended:
            calls[at].kill(block=False)
        gevent.joinall(calls, timeout=30)
        for at, call in enumerate(calls):
            if at not in ended:
                assert call.get(block=False)[0] == f"{turn}-{at}", (turn, at)
    print("each had its own")
"""


def test_a_caller_that_is_ended_leaves_none_waiting(settings):
    environ = {
        **os.environ,
        "DISPATCH_REDIS_URL": settings.redis_url.get_secret_value(),
        "DISPATCH_REDIS_PREFIX": settings.redis_prefix,
    }
    command = [sys.executable, "-c", textwrap.dedent(_ENDED)]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)

    assert (ended.returncode, ended.stdout.strip()) == (0, "each had its own"), ended.stderr
