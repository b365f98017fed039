"""The vhost whose queues the management API is asked for."""

from dispatch.broker.management import vhost
from dispatch.config.settings import load
from support.cases import each


@each(
    ("url", "name"),
    [
        ("amqp://h/robot", "robot"),
        ("amqp://h", "/"),
        ("amqp://h/", "/"),
        ("amqp://h/%2F", "/"),
        ("amqp://h/a%20b", "a b"),
        ("amqp://h/a%2520b", "a%20b"),
        ("amqp://a/one;amqp://b/two", "one"),
    ],
)
def test_a_vhost_is_decoded_once(url, name):
    assert vhost(load({}, broker_url=url)) == name
