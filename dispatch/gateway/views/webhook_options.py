"""Whether a completion webhook that a submission asks for can be delivered. Pure."""

from __future__ import annotations

import re

import httpx

from dispatch.config.groups import HandlerSettings
from dispatch.gateway.contract.request_models import WebhookOption
from dispatch.gateway.http import validation
from dispatch.gateway.http.problems import FieldError
from dispatch.protocol.webhooks import Webhook

_PORTS = {"http": 80, "https": 443}

#: Neither user nor password, nor what parsers read differently.
_URL = re.compile(r"https?://[^/?#@\\\s]+([/?#][!-~]*)?", re.IGNORECASE)


def webhook(option: WebhookOption, settings: HandlerSettings) -> Webhook:
    """The webhook of a submission.

    Args:
        option: as it was given.
        settings: where webhooks may go, and whether they can be signed.

    Raises:
        Problem: it can't be delivered.
    """
    if not settings.webhook_keys:
        text = "This system sends no webhooks: DISPATCH_WEBHOOK_SECRETS is not set."
        raise validation.invalid(FieldError("/options/webhook", text, "not_configured"))
    field = "/options/webhook/url"
    try:
        url = httpx.URL(option.url)
        port = url.port or _PORTS[url.scheme]
        allowed = settings.allows_http(url.raw_host.decode("ascii"), port, _PORTS[url.scheme])
    except (httpx.InvalidURL, KeyError, UnicodeError, ValueError):
        allowed = None
    if allowed is None or not _URL.fullmatch(option.url):
        text = "The URL must be http or https, of visible ASCII characters, with a host, without user or password."
        raise validation.invalid(FieldError(field, text, "invalid_url"))
    if not allowed:
        text = "Its host and port are not among those that this system may call (DISPATCH_HTTP_ALLOWED_HOSTS)."
        raise validation.invalid(FieldError(field, text, "host_not_allowed"))
    return Webhook(option.url, tuple(option.events))
