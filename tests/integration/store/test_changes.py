"""One subscription for all who wait, on a Redis that goes, comes back, or is silent."""

import contextlib

from pydantic import SecretStr

from dispatch.store import changes
from dispatch.store.scripts import RedisHandle
from support.proxy import Proxy
from support.waiting import eventually


@contextlib.contextmanager
def handle(settings, proxy):
    made = RedisHandle(settings.model_copy(update={"redis_url": SecretStr(proxy.url)}), timeout=1)
    with contextlib.closing(made):
        yield made


def test_all_waiters_share_a_connection_that_receives_each_channel(settings):
    with Proxy.to(settings.redis_url.get_secret_value()) as proxy, handle(settings, proxy) as made:
        made.run(("PING",))
        with contextlib.ExitStack() as stack:
            waits = [stack.enter_context(made.listening(f"{settings.redis_prefix}{at}")) for at in range(20)]
            made.run(("PUBLISH", f"{settings.redis_prefix}7", "x"))

            assert waits[7](5)
            assert proxy.connections == 2
            assert not any(wait(0) for wait in waits)
            made.wake()
            assert all(wait(0) for wait in waits)


def test_a_silent_redis_wakes_its_waiters_and_the_subscription_comes_back(settings, monkeypatch):
    monkeypatch.setattr(changes, "QUIET", 0.1)
    channel = f"{settings.redis_prefix}c"
    with (
        Proxy.to(settings.redis_url.get_secret_value()) as proxy,
        handle(settings, proxy) as made,
        made.listening(channel) as changed,
    ):
        proxy.hold()
        assert changed(5), "it should look for itself"
        proxy.cut()
        proxy.release()

        def heard():
            made.run(("PUBLISH", channel, "x"))
            return changed(0.2)

        eventually(heard, 10)
