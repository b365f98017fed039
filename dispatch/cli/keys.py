"""``dispatch keys new``: make an API key, shown once."""

from __future__ import annotations

import os
import secrets

import click

from dispatch.config import api_keys
from dispatch.config.settings import PREFIX


@click.group("keys")
def keys() -> None:
    """Make API api_keys."""


@keys.command("new")
@click.option("--id", "name", default=None, help="The principal: lower-case letters, digits, '-'. Random by default.")
@click.option(
    "--scopes", "granted", default="tasks:read+tasks:write", show_default=True, help=", ".join(api_keys.SCOPES)
)
def new(name: str | None, granted: str) -> None:
    """Print a key once, and the lines to configure.

    Reads only the two variables it extends: a gateway that refuses to start for want of a key is mended by this.
    """
    pepper = os.environ.get(f"{PREFIX}API_KEY_PEPPER") or secrets.token_urlsafe(32)
    try:
        text = api_keys.token(name or secrets.token_hex(4), api_keys.new_secret())
        entry = api_keys.ApiKey(api_keys.key_id(text) or "", api_keys.digest(pepper, text), api_keys.scopes(granted))
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc
    configured = [*filter(None, os.environ.get(f"{PREFIX}API_KEYS", "").split(",")), str(entry)]
    click.echo("The key, shown this once; its client sends `Authorization: Bearer <key>`:", err=True)
    click.echo(text)
    click.echo("Configure the gateway with:", err=True)
    if not os.environ.get(f"{PREFIX}API_KEY_PEPPER"):
        click.echo(f"{PREFIX}API_KEY_PEPPER={pepper}")
    click.echo(f"{PREFIX}API_KEYS={','.join(configured)}")
