"""The URLs that name one Redis, Sentinels or a cluster."""

import pytest

from dispatch.config.redis_url import Address, RedisKind, parse
from dispatch.store import client as redisclient
from support.cases import each


@each(
    ("text", "kind", "url", "nodes", "service"),
    [
        ("redis://h:1/3", RedisKind.SINGLE, "redis://h:1/3", (), ""),
        ("unix:///run/redis.sock", RedisKind.SINGLE, "unix:///run/redis.sock", (), ""),
        (
            "redis+sentinel://a:1,b/robots/2", RedisKind.SENTINEL, "redis://a:1/2", (("a", 1), ("b", 26_379)), "robots",
        ),
        ("redis+sentinel://[::1]:1/robots", RedisKind.SENTINEL, "redis://[::1]:1/0", (("::1", 1),), "robots"),
        ("redis+cluster://a:1,b", RedisKind.CLUSTER, "redis://a:1/0", (("a", 1), ("b", 6_379)), ""),
        (
            "rediss+cluster://me:s%40d@a:1,b:2/0?ssl_ca_certs=%2Fca.pem", RedisKind.CLUSTER,
            "rediss://me:s%40d@a:1/0?ssl_ca_certs=%2Fca.pem", (("a", 1), ("b", 2)), "",
        ),
    ],
)  # fmt: skip
def test_a_url_is_taken_apart(text, kind, url, nodes, service):
    assert parse(text) == Address(kind, url, nodes, service)


def test_the_sentinels_have_credentials_of_their_own():
    address = parse("redis+sentinel://me:pw@a:1/robots?sentinel_username=watch&sentinel_password=dog&protocol=2")

    assert address.sentinel == {"username": "watch", "password": "dog"}
    assert address.url == "redis://me:pw@a:1/0?protocol=2"


@each(
    ("text", "why"),
    [
        ("http://h", "starts with one of"),
        ("redis", "starts with one of"),
        ("redis://", "names no server"),
        ("redis://h:99999", "port"),
        ("redis+sentinel://h:1", "service"),
        ("redis+sentinel://h:1,/robots", "comma"),
        ("redis+cluster://h:x", "port"),
        ("redis+cluster://h:1/3", "databases"),
        ("redis+proxy://h:1", "starts with one of"),
        ("redis://h/tasks", "the database must be a number"),
        ("redis://h?db=one", "the database must be a number"),
        ("redis+sentinel://h:1/robots/tasks", "the database must be a number"),
        ("redis://h?socket_timeout=20", r"takes no option `socket_timeout`: only client_name, db, "),
        ("redis://h?decode_responses=false", "takes no option `decode_responses`"),
        ("rediss://h?ssl_cert_reqs=none", "takes no option `ssl_cert_reqs`"),
        ("rediss+cluster://h:1?ssl_check_hostname=false", "takes no option `ssl_check_hostname`"),
        ("redis://h?sentinel_password=dog", "takes no option `sentinel_password`"),
        ("redis://h?a%20b%22=1", "takes no option in the query"),
    ],
)
def test_a_wrong_url_is_refused_without_its_password(text, why):
    secret = text.replace("://", "://user:verysecret@") if "://h" in text else text
    with pytest.raises(ValueError, match=why) as caught:
        parse(secret)

    assert "verysecret" not in str(caught.value)


@each("url", ["redis://h", "rediss+sentinel://me:pw@a,b/robots", "redis+sentinel://a/robots", "rediss+cluster://a,b"])
def test_a_client_is_made_without_connecting(url):
    client = redisclient.connect(url, 0.1)
    client.close()
