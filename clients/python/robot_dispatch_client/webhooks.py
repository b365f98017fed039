"""For receivers of completion webhooks: verify that one is genuine (Standard Webhooks 1.0), and read it.

::

    webhook = verify(os.environ["WEBHOOK_SECRET"], request.headers, request.get_data())
    print(webhook.task.task_id, webhook.task.status)
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import json
import math
import re
import time
from collections.abc import Iterable, Mapping

import pydantic

from robot_dispatch_client.errors import WebhookRefused
from robot_dispatch_client.models import Model, Task

#: Seconds by which the clocks of both sides, and the way between them, may differ.
TOLERANCE = 300.0

_PREFIX, _VERSION = "whsec_", "v1"


class CompletionWebhook(Model):
    """The end of a task. It comes at least once: keep the `id` of what has been handled."""

    id: str  #: ``webhook-id``: the same in every delivery of this end
    type: str  #: ``task.succeeded`` or ``task.failed``
    timestamp: dt.datetime | None = None
    task: Task = pydantic.Field(alias="data")


def verify(
    secrets: str | Iterable[str],
    headers: Mapping[str, str],
    body: bytes | str,
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> CompletionWebhook:
    """A webhook, if it was signed with a secret, a moment ago.

    Args:
        secrets: ``whsec_…``; several while the sender changes over: one of them must fit.
        headers: of the request; names in any case.
        body: of the request, as it came: not parsed, not written again.
        tolerance: seconds by which its time may differ from now.
        now: epoch seconds; the current time by default.

    Raises:
        WebhookRefused: it is not genuine, not recent, or no webhook of this API. Answer it with 400.
        ValueError: a secret is none; it is not quoted.
    """
    keys = [key_of(secret) for secret in ([secrets] if isinstance(secrets, str) else secrets)]
    given = {name.lower(): value for name, value in headers.items()}
    event, sent, signatures = (given.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    raw = body.encode() if isinstance(body, str) else body
    if not keys or not any(_signed(key, event, sent, raw, signatures) for key in keys):
        raise WebhookRefused("its signature is of no secret that is known here")
    if not _recent(sent, tolerance, time.time() if now is None else now):
        raise WebhookRefused("its timestamp is not of now")
    return _read(event, raw)


def sign(secret: str, event: str, body: bytes, now: float | None = None) -> dict[str, str]:
    """The headers of a webhook, for tests of receivers.

    Args:
        secret: ``whsec_…``.
        event: its id.
        body: as it is sent.
        now: epoch seconds; the current time by default.
    """
    sent = str(math.floor(time.time() if now is None else now))
    signature = _signature(key_of(secret), event, sent, body)
    return {"webhook-id": event, "webhook-timestamp": sent, "webhook-signature": f"{_VERSION},{signature}"}


def key_of(secret: str) -> bytes:
    """The bytes of a secret.

    Args:
        secret: ``whsec_`` and base64; surrounding blanks, as of a file, are dropped.

    Raises:
        ValueError: it is none; it is not quoted.
    """
    try:
        key = base64.b64decode(secret.strip().removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError(f"A webhook secret is {_PREFIX} and base64; it is not quoted here")
    return key


def _signed(key: bytes, event: str, sent: str, body: bytes, signatures: str) -> bool:
    """Whether one of the signatures is the key's. All are compared, each in constant time."""
    expected = _signature(key, event, sent, body).encode()
    found = False
    for each in signatures.split(" "):
        version, _, signature = each.partition(",")
        same = hmac.compare_digest(expected, signature.encode(errors="replace"))
        found |= same and version == _VERSION
    return found


def _signature(key: bytes, event: str, sent: str, body: bytes) -> str:
    # What is no header of a webhook has no signature, but may not raise either.
    signed = f"{event}.{sent}.".encode(errors="replace") + body
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def _recent(sent: str, tolerance: float, now: float) -> bool:
    return re.fullmatch("[0-9]{1,15}", sent) is not None and abs(now - int(sent)) <= tolerance


def _read(event: str, body: bytes) -> CompletionWebhook:
    try:
        return CompletionWebhook.model_validate({**json.loads(body), "id": event})
    except (ValueError, TypeError):  # their text would quote the body
        raise WebhookRefused("its body is no end of a task") from None
