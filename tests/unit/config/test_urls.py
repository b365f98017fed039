"""URLs that libraries would read in different ways are refused, with what to encode and without the password."""

import pytest

from dispatch.config import urls
from support.cases import each

AMQP = {"amqp", "amqps"}


@each(
    "text",
    [
        "amqp://h",
        "amqp://me:p%40ss%2Fw%23rd%3F@h:5672/robot",
        "amqps://me:pa:ss@[::1]:5671/%2F",
        "amqp://a:1/v;amqp://b:2/v",
    ],
)
def test_a_url_with_one_meaning_passes(text):
    urls.check_each(text, AMQP)


@each(
    ("text", "why"),
    [
        ("http://h", "starts with one of amqp, amqps"),
        (" amqp://h", "starts with one of"),
        ("amqp://h\n", "blank"),
        ("amqp://me:verysecret pw@h", "blank"),
        ("amqp://me:verysecret#1@h/v", "percent-encoded: .*%23"),
        ("amqp://me:123/verysecret@h/v", "percent-encoded"),
        ("amqp://me:123?verysecret@h/v", "percent-encoded"),
        ("amqp://me:verysecret@1@h/v", "percent-encoded"),
        ("amqp://me:[verysecret]@h/v", "percent-encoded"),
        ("amqp://me:verysecret%@h/v", "%25"),
        ("amqp://me:verysecret@h/v#part", "percent-encoded"),
        ("amqp://me:verysecret@[::1/v", "in brackets"),
        ("amqp://me:verysecret@:5672/v", "names no server"),
        ("amqp://me:verysecret@h:99999/v", "up to 65535"),
        ("amqp://h;amqps://h", "all be with TLS"),
        ("amqps://h?ssl_cert_reqs=none", "takes no ssl options"),
        ("amqp://h?connection_timeout=5", "takes no option `connection_timeout`"),
        ("amqp://h?heartbeat=", "takes no option `heartbeat`"),
    ],
)
def test_any_other_is_refused_without_its_password(text, why):
    with pytest.raises(ValueError, match=why) as caught:
        urls.check_each(text, AMQP)

    assert "verysecret" not in str(caught.value)
