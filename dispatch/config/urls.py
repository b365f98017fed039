"""Checks of URLs in settings. Pure."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit


def check(text: str, schemes: set[str]) -> None:
    """Refuse URLs that name no server.

    Args:
        text: one URL, or several separated by ``;``.
        schemes: the schemes that are allowed.

    Raises:
        ValueError: what is wrong, without the URL, which has a password.
    """
    each = [urlsplit(url) for url in text.split(";")]
    if len({parts.scheme for parts in each}) > 1:
        raise ValueError("must all be with TLS, or all without")
    for parts in each:
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"must be a URL that starts with one of {', '.join(sorted(schemes))}")
        try:
            parts.port  # noqa: B018 - the property checks the number
        except ValueError as exc:
            raise ValueError("the port must be a number up to 65535") from exc
        if any(name.startswith("ssl") for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
            raise ValueError("takes no ssl options: set DISPATCH_BROKER_TLS_CA and its siblings")
