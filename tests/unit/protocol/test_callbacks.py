"""Callback tokens: one signal of one task, until they expire."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.config.settings import load
from dispatch.errors import ConfigurationError
from dispatch.protocol.callbacks import (
    MAX_TOKEN,
    Callback,
    CallbackSecrets,
    CallbackUrls,
    ExpiredToken,
    InvalidToken,
)
from support.cases import each

OLD, NEW = "o" * 32, "n" * 32
SECRETS = CallbackSecrets.parse(NEW)
CALLBACK = Callback("0198c1a2-0000-7000-8000-000000000001", "finished", 2_000)
TOKEN = SECRETS.token(CALLBACK)


def test_a_token_stands_for_what_it_was_made_of_until_it_expires():
    assert SECRETS.read(TOKEN, 1_999.9) == CALLBACK
    with pytest.raises(ExpiredToken):
        SECRETS.read(TOKEN, 2_000)


def test_the_first_secret_makes_and_every_secret_verifies():
    both = CallbackSecrets.parse(f"{NEW}, {OLD}")

    assert both.token(CALLBACK) == TOKEN
    assert both.read(CallbackSecrets.parse(OLD).token(CALLBACK), 0) == CALLBACK
    with pytest.raises(InvalidToken):
        SECRETS.read(CallbackSecrets.parse(OLD).token(CALLBACK), 0)


@given(st.text(max_size=MAX_TOKEN + 5))
def test_no_other_text_is_a_token(text):
    with pytest.raises(InvalidToken):
        SECRETS.read(text, 0)


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from("Aa0-_.=+/"))
def test_a_token_with_another_character_stands_for_nothing_else(at, character):
    changed = TOKEN[:at] + character + TOKEN[at + 1 :]
    try:
        found = SECRETS.read(changed, 0)
    except InvalidToken:
        return
    assert found == CALLBACK  # the bits of the last character that are not part of the bytes


def test_without_a_secret_there_are_no_tokens():
    none = CallbackSecrets()

    assert CallbackUrls(none, "https://d.example").url(CALLBACK) is None
    assert CallbackUrls(SECRETS, "").url(CALLBACK) is None
    with pytest.raises(InvalidToken):
        none.read(TOKEN, 0)
    with pytest.raises(ValueError, match="no secret"):
        none.token(CALLBACK)


def test_a_url_has_the_token_as_it_is():
    url = CallbackUrls(SECRETS, "https://d.example/robots").url(CALLBACK)

    assert url == f"https://d.example/robots/v1/callbacks/{TOKEN}"
    assert base64.urlsafe_b64decode(TOKEN.partition(".")[0] + "==").split(b"\n")[1] == b"finished"


@each(
    ("variables", "problem"),
    [
        ({"CALLBACK_SECRETS": "s" * 31}, "secret 1 is shorter than 32 characters"),
        ({"CALLBACK_SECRETS": f"{NEW},short"}, "secret 2 is shorter"),
        ({"PUBLIC_URL": "ftp://d.example"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "https://d.example?a=b"}, "base URL"),
        ({"PUBLIC_URL": "https://ada:pw@d.example"}, "base URL"),
        ({"PUBLIC_URL": "https://"}, "base URL"),
    ],
)
def test_wrong_settings_stop_the_start_and_show_no_secret(variables, problem):
    with pytest.raises(ConfigurationError, match=problem) as caught:
        load({f"DISPATCH_{name}": value for name, value in variables.items()})

    assert NEW not in str(caught.value)


def test_settings_make_what_handlers_use_and_their_repr_has_no_secret():
    settings = load({"DISPATCH_CALLBACK_SECRETS": NEW, "DISPATCH_PUBLIC_URL": "https://d.example/"})

    assert settings.callback_urls.url(CALLBACK) == f"https://d.example/v1/callbacks/{TOKEN}"
    assert NEW not in f"{settings!r}{settings.callback_urls!r}"
    assert not hasattr(settings.handlers(), "callback_secrets")
