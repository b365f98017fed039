"""Redis over TLS with redis-server's own: one server, a master under Sentinels, a cluster; each asks for a certificate."""

import contextlib

import pytest

from dispatch.config.settings import load
from dispatch.errors import StoreUnavailable
from dispatch.store.scripts import RedisHandle
from support import redises
from support.certificates import Authority
from support.redises import ServerTls

LAYOUTS = {"single": redises.single, "sentinels": redises.sentinels, "cluster": redises.cluster}


@pytest.fixture(scope="module")
def authorities(tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificates")
    return Authority(directory, "ours"), Authority(directory, "theirs")


@contextlib.contextmanager
def handle(url, **files):
    made = RedisHandle(load({}, redis_url=url, **files), timeout=1)
    with contextlib.closing(made):
        yield made


def write_and_read(made):
    made.run(("SET", "{a}b", "1"), ("GET", "{a}b"))
    with made.listening("changes") as wait:
        made.run(("PUBLISH", "changes", "x"))
        assert wait(2)
    return made.gather(("GET", "{a}b"), ("GET", "{b}b"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_settings_or_the_urls_options_are_enough_and_without_them_nothing_is_sent(authorities, layout):
    ours, theirs = authorities
    client = ours.issue("dispatch")
    files = {"redis_tls_ca": ours.ca, "redis_tls_cert": client.cert, "redis_tls_key": client.key}
    options = f"?ssl_ca_certs={ours.ca}&ssl_certfile={client.cert}&ssl_keyfile={client.key}"

    with LAYOUTS[layout](ServerTls(ours.ca, ours.issue("127.0.0.1"))) as servers:
        with handle(servers.url, **files) as made:
            assert write_and_read(made) == ["1", None]
        with handle(servers.url + options) as made:
            assert write_and_read(made) == ["1", None]
        with handle(servers.url + options, redis_tls_ca=theirs.ca) as made:  # the URL's own win
            assert write_and_read(made) == ["1", None]
        for wrong in ({**files, "redis_tls_ca": theirs.ca}, {**files, "redis_tls_ca": ""}):
            assert "its certificate was refused: " in _refused(servers.url, wrong)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_certificate_for_another_name_is_refused(authorities, layout):
    ours = authorities[0]
    client = ours.issue("dispatch")
    files = {"redis_tls_ca": ours.ca, "redis_tls_cert": client.cert, "redis_tls_key": client.key}

    with LAYOUTS[layout](ServerTls(ours.ca, ours.issue("elsewhere.example"))) as servers:
        assert "IP address mismatch" in _refused(servers.url, files)


def _refused(url, files):
    """The reason; at once and while calls fail at once, and Redis received nothing that it could answer."""
    with handle(url, **files) as made:
        reasons = set()
        for _ in range(2):
            with pytest.raises(StoreUnavailable) as caught:
                made.run(("SET", "{a}b", "2"))
            reasons.add(caught.value.trouble.reason)
    assert len(reasons) == 1
    return reasons.pop()
