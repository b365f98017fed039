"""``dispatch keys new | list | revoke``: API keys, in the file that gateways follow or as a line to configure."""

from __future__ import annotations

import datetime as dt
import os
import re
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from dispatch.cli.output import as_json_option, echo_line, operator, reported
from dispatch.cli.tables import table
from dispatch.config import api_keys, key_file
from dispatch.config.api_keys import ApiKey
from dispatch.config.groups import AuditSettings, RedisSettings
from dispatch.config.settings import PREFIX
from dispatch.errors import DispatchError

if TYPE_CHECKING:
    from dispatch.store.scripts import RedisHandle

Used = TypeVar("Used")

_FILE = f"{PREFIX}API_KEYS_FILE"
_PEPPER = f"{PREFIX}API_KEY_PEPPER"
_REDIS_URL = f"{PREFIX}REDIS_URL"
_DEFAULT_SCOPES = "tasks:read+tasks:write"

#: Seconds for Redis's answer: the list is useful without the last uses.
_REDIS_TIMEOUT = 1.0

_UNITS = {"m": 60, "h": 3_600, "d": 86_400}

_file = click.option(
    "--file", "path", envvar=_FILE, default="", help=f"The file of API keys.  [default: {_FILE}]", metavar="PATH"
)


class KeyCommandRefused(DispatchError):
    """The file of API keys was not changed."""


class _Listed(NamedTuple):
    """A configured API key and where it is."""

    entry: ApiKey
    where: str


@click.group("keys")
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command("new")
@click.option("--id", "name", default=None, help="The principal: lower-case letters, digits, '-'. Random by default.")
@click.option(
    "--scopes",
    "granted",
    default=None,
    help=f"{', '.join(api_keys.SCOPES)}, joined by '+'.  [default: those of the id's other key, or {_DEFAULT_SCOPES}]",
)
@click.option("--expires", default=None, metavar="TIME", help="30m, 12h, 90d from now, or an RFC 3339 time.")
@_file
@as_json_option
@reported("keys")
def new(name: str | None, granted: str | None, expires: str | None, path: str, as_json: bool) -> None:
    """Print a key once. With a file its entry is added there; otherwise the lines to configure are printed.

    A second key of an id lets its secret be replaced while both are valid.

    Reads only the variables it needs: a gateway that refuses to start for want of a key is mended by this.
    """
    name = name or secrets.token_hex(4)
    if path:
        _add(path, name, granted, expires, as_json)
    else:
        _print(name, granted, expires, as_json)


@keys.command("list")
@_file
@as_json_option
@reported("keys")
def list_keys(path: str, as_json: bool) -> None:
    """The API keys, without any secret; KEY distinguishes the secrets of one id.

    LAST USED is exact to a minute, and read from Redis where DISPATCH_REDIS_URL is set.
    """
    found = [_Listed(entry, "file") for entry in _entries(key_file.lines(path) if path else [])]
    found += [_Listed(entry, "setting") for entry in _configured()]
    uses = _last_uses([listed.entry for listed in found])
    for listed, used in zip(found, uses, strict=True) if as_json else []:
        entry, at = listed.entry, None if used in {"?", "-"} else used
        expires = None if entry.expires is None else api_keys.written(entry.expires)
        echo_line({**_named(entry), "expires": expires, "lastUsed": at, "from": listed.where})
    rows = [
        (
            listed.entry.id,
            listed.entry.fingerprint,
            listed.entry.granted,
            _shown_expiry(listed.entry),
            used,
            listed.where,
        )
        for listed, used in zip(found, uses, strict=True)
    ]
    if not as_json:
        click.echo(table(("ID", "KEY", "SCOPES", "EXPIRES", "LAST USED", "FROM"), rows) if rows else "no API keys")


@keys.command("revoke")
@click.argument("name", metavar="ID")
@click.option("--key", "fingerprint", default=None, help="Only this secret of the id: KEY of `dispatch keys list`.")
@_file
@as_json_option
@reported("keys")
def revoke(name: str, fingerprint: str | None, path: str, as_json: bool) -> None:
    """Remove an id's keys from the file: running gateways refuse them within two seconds."""
    if not path:
        raise click.UsageError(f"name the file: --file, or {_FILE}; a key of {PREFIX}API_KEYS goes with a restart")

    def unwanted(entry: ApiKey | None) -> bool:
        return entry is not None and entry.id == name and fingerprint in (None, entry.fingerprint)

    with key_file.locked(path):
        before = key_file.lines(path)
        gone = [entry for entry in _entries(before) if unwanted(entry)]
        if not gone:
            raise KeyCommandRefused(f"there is no such API key in {path}")
        key_file.write(path, [line for line in before if not unwanted(key_file.entry_of(line))])
    for entry in gone:
        if as_json:
            echo_line({**_named(entry), "outcome": "revoked"})
        else:
            click.echo(f"{entry.id} {entry.fingerprint} revoked")
        _audit("revokeApiKey", entry, path)
    if any(entry.id == name for entry in _configured()):
        click.echo(f"{PREFIX}API_KEYS has a key of {name}, too: it is valid until it is removed there.", err=True)


def _named(entry: ApiKey) -> dict[str, Any]:
    return {"id": entry.id, "key": entry.fingerprint, "scopes": entry.granted}


def _add(path: str, name: str, granted: str | None, expires: str | None, as_json: bool) -> None:
    with key_file.locked(path):
        before = key_file.lines(path)
        entries = _entries(before)
        pepper = os.environ.get(_PEPPER) or secrets.token_urlsafe(32)
        if entries and not os.environ.get(_PEPPER):
            raise KeyCommandRefused(f"set {_PEPPER}: {path} has keys, and a key with another pepper would not work")
        others = [entry for entry in entries if entry.id == name]
        if len(others) >= key_file.SECRETS:
            raise KeyCommandRefused(f"{name} has {len(others)} keys: revoke one first (dispatch keys revoke --key)")
        same = others[-1].granted if others else _DEFAULT_SCOPES
        text, entry = _made(pepper, name, granted if granted is not None else same, expires)
        key_file.write(path, [*before, str(entry)])
    configure = {} if os.environ.get(_PEPPER) else {_PEPPER: pepper}
    if as_json:
        echo_line({**_named(entry), "token": text, "file": path, "configure": configure})
    else:
        _show(text)
    _audit("newApiKey", entry, path)
    click.echo(
        f"Added to {path} as {entry.id} {entry.fingerprint}; running gateways take it within two seconds.", err=True
    )
    if configure and not as_json:
        click.echo("Configure the gateway with:", err=True)
        click.echo(f"{_PEPPER}={pepper}")


def _print(name: str, granted: str | None, expires: str | None, as_json: bool) -> None:
    pepper = os.environ.get(_PEPPER) or secrets.token_urlsafe(32)
    text, entry = _made(pepper, name, granted if granted is not None else _DEFAULT_SCOPES, expires)
    configured = [*filter(None, os.environ.get(f"{PREFIX}API_KEYS", "").split(",")), str(entry)]
    if as_json:
        variables = {_PEPPER: pepper, f"{PREFIX}API_KEYS": ",".join(configured)}
        echo_line({**_named(entry), "token": text, "file": None, "configure": variables})
        return
    _show(text)
    click.echo("Configure the gateway with:", err=True)
    if not os.environ.get(_PEPPER):
        click.echo(f"{_PEPPER}={pepper}")
    click.echo(f"{PREFIX}API_KEYS={','.join(configured)}")


def _made(pepper: str, name: str, granted: str, expires: str | None) -> tuple[str, ApiKey]:
    try:
        text = api_keys.token(name, api_keys.new_secret())
        lapses = _moment(expires) if expires else None
        return text, ApiKey(name, api_keys.digest(pepper, text), api_keys.scopes(granted), lapses)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc


def _show(text: str) -> None:
    click.echo("The key, shown this once; its client sends `Authorization: Bearer <key>`:", err=True)
    click.echo(text)


def _moment(text: str) -> dt.datetime:
    """A time, or one from now on."""
    match = re.fullmatch(r"(\d{1,5})([mhd])", text)
    if match is None:
        return api_keys.moment(text)
    return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def _entries(lines: Sequence[str]) -> list[ApiKey]:
    return [entry for line in lines if (entry := key_file.entry_of(line)) is not None]


def _configured() -> list[ApiKey]:
    """The entries of the setting; invalid ones are the gateway's to report."""
    found = []
    for text in filter(None, map(str.strip, os.environ.get(f"{PREFIX}API_KEYS", "").split(","))):
        try:
            found.append(api_keys.parse(text))
        except ValueError:
            click.echo(f"{PREFIX}API_KEYS has an invalid entry", err=True)
    return found


def _shown_expiry(entry: ApiKey) -> str:
    if entry.expires is None:
        return "never"
    over = entry.expired(dt.datetime.now(dt.UTC).timestamp())
    return api_keys.written(entry.expires) + (" (expired)" if over else "")


def _last_uses(entries: Sequence[ApiKey]) -> list[str]:
    from dispatch.store.key_usage import KeyUsage  # noqa: PLC0415 - imported when it is used

    uses = _with_redis(lambda redis, _: KeyUsage(redis).last([entry.fingerprint for entry in entries]))
    if uses is None:
        return ["?"] * len(entries)
    return ["-" if at is None else api_keys.written(dt.datetime.fromtimestamp(at, dt.UTC)) for at in uses]


def _audit(verb: str, entry: ApiKey, path: str) -> None:
    """An entry in the audit log of a Redis that the environment names; the gateways log the change in any case."""
    if not os.environ.get(_REDIS_URL):
        return
    from dispatch.protocol.audit import OK, AuditEntry  # noqa: PLC0415 - imported when it is used
    from dispatch.store.audit import AuditLog  # noqa: PLC0415
    from dispatch.telemetry import logs  # noqa: PLC0415

    logs.configure("keys")
    details = {"scopes": entry.granted, "file": path}
    act = AuditEntry(
        operator(), verb, f"{entry.id} {entry.fingerprint}", OK, client=socket.gethostname(), details=details
    )
    _with_redis(lambda redis, settings: AuditLog(redis, settings, lines=False).add(act))


class _Stored(RedisSettings, AuditSettings):
    """What these commands need of the settings: they work without the others."""


def _with_redis(use: Callable[[RedisHandle, _Stored], Used]) -> Used | None:
    """The outcome of a use; None without DISPATCH_REDIS_URL: another Redis on this machine would answer, too."""
    if not os.environ.get(_REDIS_URL):
        return None
    from dispatch.store.scripts import RedisHandle  # noqa: PLC0415 - imported when it is used

    given = {name: os.environ.get(f"{PREFIX}{name.upper()}") for name in _Stored.model_fields}
    try:
        settings = _Stored.model_validate({name: value for name, value in given.items() if value is not None})
        redis = RedisHandle(settings, timeout=_REDIS_TIMEOUT)
        try:
            return use(redis, settings)
        finally:
            redis.close()
    except (ValueError, DispatchError) as exc:
        click.echo(f"keys: Redis can't be used: {type(exc).__name__}", err=True)
        return None
