"""Checks of URLs in settings. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit


def check(text: str, schemes: set[str]) -> None:
    """Refuse URLs that name no server.

    Args:
        text: one URL, or several separated by ``;``.
        schemes: the schemes that are allowed.

    Raises:
        ValueError: what is wrong, without the URL, which has a password.
    """
    for url in text.split(";"):
        parts = urlsplit(url)
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"must be a URL that starts with one of {', '.join(sorted(schemes))}")
        try:
            parts.port  # noqa: B018 - the property checks the number
        except ValueError as exc:
            raise ValueError("the port must be a number up to 65535") from exc
