"""The receiver's side of completion webhooks: what is genuine is read, everything else is refused."""

import base64
import json

import pytest

from dispatch.protocol import webhooks as sender
from robot_dispatch_client import WebhookRefused, webhooks
from robot_dispatch_client.testing import FakeDispatch
from support.cases import each

NOW = 1_770_000_000
OLD, NEW = ("whsec_" + base64.b64encode(bytes([number]) * 24).decode() for number in (1, 2))
BODY = json.dumps(
    {
        "type": "task.failed",
        "timestamp": "2026-11-24T02:36:00.000Z",
        "data": {"taskId": "019a", "status": "FAIL", "later": 1},
    }
).encode()


def sent(secrets=OLD, body=BODY, event="019b", now=NOW):
    """The headers that the system sends."""
    return dict(sender.headers(sender.secrets(secrets), event, now, body))


def test_what_the_system_has_signed_is_read():
    found = webhooks.verify(OLD, sent(), BODY, now=NOW + 299)

    assert (found.id, found.type, found.task.task_id, found.task.status) == ("019b", "task.failed", "019a", "FAIL")
    assert (found.timestamp.year, found.task.model_extra) == (2026, {"later": 1})


def test_the_published_example_of_the_standard_has_its_signature():
    secret, event, body = (
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        b'{"test": 2432232314}',
    )

    assert webhooks.sign(secret, event, body, 1_614_265_330)["webhook-signature"] == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@each("known", [OLD, NEW, [OLD], [NEW, OLD], iter([NEW])])
def test_while_a_secret_is_changed_over_either_fits(known):
    assert webhooks.verify(known, sent(f"{NEW},{OLD}"), BODY, now=NOW).id == "019b"


def test_names_of_headers_have_any_case_and_a_body_may_be_text():
    given = {name.title(): value for name, value in sent().items()}

    assert webhooks.verify(OLD, given, BODY.decode(), now=NOW).id == "019b"


def changed(**headers):
    return {**sent(), **{f"webhook-{name}": value for name, value in headers.items()}}


SIGNATURE = sent()["webhook-signature"]


@each(
    "headers",
    [
        {}, {"webhook-signature": SIGNATURE}, sent(NEW), changed(id="019c"), changed(id=""), changed(timestamp=str(NOW + 1)),
        changed(timestamp=""), changed(signature=""), changed(signature=SIGNATURE.replace("v1,", "v2,")),
        changed(signature=SIGNATURE[3:]), changed(signature=SIGNATURE[:-1]), changed(signature=f"v1a,{SIGNATURE[3:]}"),
        changed(signature="v1,ü\udcff"), changed(id="\udcff"), changed(signature="v1," * 1_000),
    ],
)  # fmt: skip
def test_what_is_not_signed_is_refused(headers):
    with pytest.raises(WebhookRefused, match="signature"):
        webhooks.verify(OLD, headers, BODY, now=NOW)


@each("body", [BODY + b" ", BODY[:-1], b"", b"{}"])
def test_a_body_that_was_changed_is_refused(body):
    with pytest.raises(WebhookRefused, match="signature"):
        webhooks.verify(OLD, sent(), body, now=NOW)


@each("now", [NOW - 301, NOW + 301, NOW * 1_000])
def test_a_webhook_of_another_time_is_refused(now):
    with pytest.raises(WebhookRefused, match="timestamp"):
        webhooks.verify(OLD, sent(), BODY, now=now)
    assert webhooks.verify(OLD, sent(), BODY, now=now, tolerance=float("inf")).id == "019b"


@each("stamp", ["-1", "1e9", "1_770_000_000", " 1770000000", "٣", "9" * 16])
def test_a_timestamp_that_is_none_is_refused_also_where_it_is_signed(stamp):
    signed = webhooks._signature(webhooks.key_of(OLD), "019b", stamp, BODY)
    with pytest.raises(WebhookRefused, match="timestamp"):
        webhooks.verify(OLD, changed(timestamp=stamp, signature=f"v1,{signed}"), BODY, now=NOW, tolerance=float("inf"))


@each(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"type": "task.failed", "data": {}}',
        b'{"type": "task.failed", "data": {"s3cr3t": 1}}',
    ],
)
def test_a_signed_body_of_something_else_is_refused_without_quoting_it(body):
    with pytest.raises(WebhookRefused) as caught:
        webhooks.verify(OLD, sent(body=body), body, now=NOW)

    assert "body" in str(caught.value)
    assert "s3cr3t" not in repr(caught.value)
    assert caught.value.__cause__ is None


@each("secret", ["", "whsec_", "whsec_ö", "whsec_!!", "none-at-all"])
def test_a_secret_that_is_none_is_an_error_that_does_not_quote_it(secret):
    with pytest.raises(ValueError, match="not quoted") as caught:
        webhooks.verify(secret, sent(), BODY)

    assert "none-at-all" not in str(caught.value)


def test_without_a_secret_nothing_is_genuine():
    with pytest.raises(WebhookRefused):
        webhooks.verify([], sent(), BODY, now=NOW)


def test_a_receiver_is_tested_with_a_webhook_of_the_fake():
    fake = FakeDispatch()
    fake.on("clean", error="robot-broken")
    with fake.client() as client:
        dead = client.wait(client.submit("clean", {}, webhook="https://shop.example/robots"))
    headers, body = fake.webhook(dead.task_id, OLD)
    found = webhooks.verify(OLD, headers, body)

    assert (found.type, found.task.error.type, found.task.webhook.url) == (
        "task.failed", "robot-broken", "https://shop.example/robots",
    )  # fmt: skip
