"""Fixtures of every suite: real servers, a vhost and a key prefix for each test, or for a module that shares a worker."""

import gc
import os
import sys
import time
from collections.abc import Generator, Iterator

import pytest

import dispatch.config.settings
from dispatch.background import Background
from dispatch.telemetry import tracing
from support import servers as shared

_EXTERNAL = shared.external(os.environ)

#: Variables that pytest itself changes.
_PYTESTS = {"PYTEST_CURRENT_TEST"}


def pytest_configure(config: pytest.Config) -> None:
    """A developer's own DISPATCH_* must not leak into tests, nor into what they start."""
    for name in [name for name in os.environ if name.startswith(dispatch.config.settings.PREFIX)]:
        del os.environ[name]
    os.environ.pop("COLUMNS", None)  # test processes have a width that a table would be cut to
    # A process that may not keep bytecode compiles every module again: three seconds of CPU at each start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    if not hasattr(config, "workerinput"):
        shared.prepare()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules and tests stay: no garbage is looked for while they are imported, nor among them afterwards."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers when the whole run is over, also when it was interrupted."""
    if not hasattr(config, "workerinput"):
        shared.discard()


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """A test changes nothing of its process for good: the next one in it may be any other, of any suite."""
    before = dict(os.environ)
    yield
    after, left = dict(os.environ), tracing.enabled()
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} - _PYTESTS
    for name in changed:
        os.environ.pop(name, None)
    os.environ.update({name: before[name] for name in changed & before.keys()})
    tracing._backend = None
    assert not changed, f"variables are not put back: {sorted(changed)}"
    assert not left, "spans are still recorded"


@pytest.fixture(autouse=True, scope="module")
def _no_thread_outlives_its_module() -> Iterator[None]:
    """Background threads that a module's tests started end with it.

    Such a thread would go on in tests of other files: it would log, meet their closed network, and disturb `ast.parse`,
    which CPython 3.11 cannot run in two threads at once (a traceback with its carets parses, too).
    """
    started, start = list[Background](), Background.start

    def recorded(thread: Background) -> None:
        started.append(thread)
        start(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Background, "start", recorded)
        yield
    for thread in started:
        thread.stop()
    end = time.monotonic() + 10
    for thread in started:
        thread.stop(max(0.01, end - time.monotonic()))
    lasting = [type(thread).__name__ for thread in started if thread._thread.is_alive()]
    assert not lasting, f"threads go on: {lasting}"


@pytest.fixture(scope="session")
def servers() -> shared.Servers:
    """Real RabbitMQ and Redis: ``amqp_url`` (without a vhost), ``management_url``, ``redis_url``."""
    return _EXTERNAL or shared.obtain()


@pytest.fixture
def created_vhost(servers: shared.Servers) -> Iterator[str]:
    """The broker URL of a fresh, empty vhost that goes with the test."""
    for name in shared.vhost(servers):
        yield servers.broker_url(name)


@pytest.fixture
def vhost(created_vhost: str) -> str:
    """The broker URL of `settings`."""
    return created_vhost


@pytest.fixture
def redis_prefix(servers: shared.Servers) -> Iterator[str]:
    """A key prefix that no other test has; its keys go with the test."""
    prefix = f"{shared.unique('t')}:"
    yield prefix
    servers.delete_keys(prefix)


@pytest.fixture
def settings(servers: shared.Servers, vhost: str, redis_prefix: str, tmp_path) -> dispatch.config.settings.Settings:
    """Settings with the test's own vhost and key prefix, and a ladder of seconds."""
    return _settings(servers, vhost, redis_prefix, tmp_path)


@pytest.fixture(scope="module")
def module_settings(servers: shared.Servers, tmp_path_factory) -> Iterator[dispatch.config.settings.Settings]:
    """As `settings`, for what all tests of a module share: a vhost and a key prefix of the module's own."""
    prefix = f"{shared.unique('m')}:"
    for name in shared.vhost(servers):
        yield _settings(servers, servers.broker_url(name), prefix, tmp_path_factory.mktemp("module"))
    servers.delete_keys(prefix)


def _settings(servers: shared.Servers, vhost: str, redis_prefix: str, directory) -> dispatch.config.settings.Settings:
    return dispatch.config.settings.load(
        {},
        broker_url=vhost,
        management_url=servers.management_url,
        redis_url=servers.redis_url,
        redis_prefix=redis_prefix,
        ladder="1m=1,5m=2,30m=3",
        lease_park=1,
        hold_ttl=3,
        delay_levels=4,
        lease=2,
        soft_shutdown=2,
        sweep_interval=0.5,
        sweep_margin=1,
        unpublished_grace=2,
        idempotency_retry=1,
        robot_poll=0.1,
        run_dir=str(directory / "run"),
    )
