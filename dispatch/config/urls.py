"""One check of every URL in the settings: what a parser could read in another way is refused. Pure.

The libraries of RabbitMQ, Redis and HTTP take URLs apart each in its own way. A URL that passes has one meaning in all of
them: user and password are percent-encoded (RFC 3986, section 3.2.1), and the query has known options only.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import SplitResult, parse_qsl, urlsplit

_BLANK = re.compile(r"[\s\x00-\x1f\x7f]")
_BARE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_OPTION = re.compile(r"[A-Za-z0-9_.-]{1,40}")

#: For a user or password that a parser would end in the middle.
_ENCODE = "user and password must be percent-encoded: `@` is %40, `/` %2F, `?` %3F, `#` %23, `[` %5B, `]` %5D"


def check_each(text: str, schemes: Collection[str]) -> None:
    """Refuse URLs of RabbitMQ.

    Args:
        text: one URL, or several separated by ``;``.
        schemes: the schemes that are allowed.

    Raises:
        ValueError: what is wrong, without the URL, which has a password.
    """
    parts = [split(url, schemes) for url in text.split(";")]
    if len({each.scheme for each in parts}) > 1:
        raise ValueError("must all be with TLS, or all without")
    for each in parts:
        if not each.hostname:
            raise ValueError("names no server")
        check_port(each)
        if any(name.startswith("ssl") for name in options(each)):
            raise ValueError("takes no ssl options: set DISPATCH_BROKER_TLS_CA and its siblings")
        check_options(each, ())


def split(text: str, schemes: Collection[str]) -> SplitResult:
    """Take a URL apart.

    Args:
        text: the URL.
        schemes: the schemes that are allowed, in lower case.

    Returns:
        Its parts; user and password are still encoded.

    Raises:
        ValueError: it could be read in two ways, or its scheme is another; the message has no part of it.
    """
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in schemes:
        raise ValueError(f"must be a URL that starts with one of {', '.join(sorted(schemes))}")
    if _BLANK.search(text):
        raise ValueError("has a blank or a control character: a blank is %20")
    if _BARE_PERCENT.search(text):
        raise ValueError("has a `%` that encodes nothing: a percent sign is %25")
    authority, *behind = re.split(r"[/?#]", rest, maxsplit=1)
    credentials = authority.rpartition("@")[0]
    if any("@" in part for part in (credentials, *behind)) or "#" in rest or re.search(r"[\[\]]", credentials):
        raise ValueError(_ENCODE)
    try:
        return urlsplit(text)
    except ValueError as exc:
        raise ValueError("an IPv6 address must be in brackets: [::1]") from exc


def check_port(parts: SplitResult) -> None:
    """Refuse a port that is none; raises ValueError."""
    try:
        parts.port  # noqa: B018 - the property checks the number
    except ValueError as exc:
        raise ValueError("the port must be a number up to 65535") from exc


def options(parts: SplitResult) -> dict[str, str]:
    """The options in the query, decoded."""
    return dict(parse_qsl(parts.query, keep_blank_values=True))


def check_options(parts: SplitResult, allowed: Collection[str]) -> None:
    """Refuse options that would override limits of ours, or that no library has.

    Args:
        parts: of the URL.
        allowed: names of options.

    Raises:
        ValueError: an option is not allowed; its value is not in the message.
    """
    for name in options(parts):
        if name not in allowed:
            shown = f"`{name}`" if _OPTION.fullmatch(name) else "in the query"
            known = f": only {', '.join(sorted(allowed))}" if allowed else ""
            raise ValueError(f"takes no option {shown}{known}")
