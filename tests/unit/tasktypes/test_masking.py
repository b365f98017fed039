"""No secret of a payload is shown: not one that is declared, nor one that has a secret's name, nor one inside a text."""

import copy
import json

from hypothesis import given
from hypothesis import strategies as st

from dispatch.tasktypes.masking import MASK, closed, is_suspicious, masked
from dispatch.tasktypes.payload import Payload, Secret
from support.cases import each
from tasks.http import HttpRequest

HUSH = "hush-4711-hush"


class Inner(Payload):
    pin: Secret
    note: str = ""


class Order(Payload):
    name: str = ""
    key_of_door: Secret = ""
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    by_name: dict[str, Secret] | None = None


@each(
    "payload",
    [
        {"keyOfDoor": HUSH},
        {"key_of_door": HUSH},
        {"inner": {"pin": HUSH, "note": f"the pin is {HUSH}"}},
        {"many": [{"pin": "x"}, {"pin": HUSH}]},
        {"byName": {"any name": HUSH}},
        {"keyOfDoor": HUSH, "name": f"x{HUSH}x", "free": [{"deep": {HUSH: HUSH}}]},
        {"keyOfDoor": {"not": ["of the", "declared", {"type": HUSH}]}},
    ],
)
def test_what_a_type_declares_secret_is_masked_wherever_it_stands(payload):
    before = copy.deepcopy(payload)
    shown = masked(Order, payload)

    assert HUSH not in json.dumps(shown.value)
    assert shown.places
    assert HUSH not in repr(shown)
    assert payload == before


@each(
    "payload",
    [
        {name: HUSH}
        for name in (
            "authorization", "Authorization", "proxy-authorization", "password", "PassWord", "db_password", "userPasswd", "pwd",
            "token", "accessToken", "x-auth-token", "csrf.token", "secret", "client_secret", "CLIENT-SECRET", "secrets", "apiKey",
            "api_key", "X-Api-Key", "API KEY", "privateKey", "private_key", "access-key-id", "credentials", "Set-Cookie", "sessionId",
            "passphrase", "bearer",
        )
    ]
    + [
        {"a": [{"b": [{"c": {"token": HUSH}}]}]},
        {"token": {"value": HUSH, "list": [HUSH]}},
        {"token": [HUSH]},
        {"headers": [{"name": "Authorization", "value": HUSH}, {"name": "Accept", "value": "*/*"}]},
        {"headers": [{"Key": "x-api-key", "Value": HUSH}]},
        {"headers": [["Authorization", HUSH], ["Accept", "*/*"]]},
        {"url": f"https://user:{HUSH}@host/x"},
        {"url": f"https://{HUSH}@host/x"},
        {"url": f"https://host/x?a=1&api_key={HUSH}&b=2"},
        {"url": f"https://host/x?access_token={HUSH}#x"},
        {"curl": f"curl -H 'Authorization: Bearer {HUSH}' https://host"},
        {"curl": f"-H 'authorization: {HUSH} more'\n-d x"},
        {"header": f"Cookie: a=b; c={HUSH}"},
        {"header": f"Bearer {HUSH}"},
        {"header": f"basic {HUSH}"},
        {"jwt": f"see eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3In0.{HUSH}"},
        {"pem": f"-----BEGIN RSA PRIVATE KEY-----\n{HUSH}\n-----END RSA PRIVATE KEY-----"},
        {"pem": f"-----BEGIN PRIVATE KEY-----\n{HUSH}"},
        {"form": f"user=ada&password={HUSH}&x=1"},
        {"yaml": f"password: '{HUSH}'"},
        {"text": json.dumps({"a": [{"password": HUSH}]})},
        {"text": "  " + json.dumps([json.dumps({"token": HUSH})])},
        {"password": HUSH, "elsewhere": f"it was {HUSH}!", "in": [{"a name": HUSH}]},
    ],
)  # fmt: skip
def test_what_has_a_secrets_name_or_looks_like_one_is_masked_in_any_type(payload):
    shown = masked(Order, payload)

    assert HUSH not in json.dumps(shown.value)
    assert shown.places
    assert shown == masked(None, payload)


def test_the_headers_of_an_http_request_are_masked_and_all_else_is_shown():
    payload = {
        "method": "POST",
        "url": "https://h/x?q=1",
        "headers": {"X-Anything": HUSH},
        "json": {"n": 1},
        "timeoutSeconds": 5,
    }
    shown = masked(HttpRequest, payload)

    assert shown.value == {**payload, "headers": {"X-Anything": MASK}}
    assert shown.places == ["/headers/X-Anything"]


@each(
    "payload",
    [
        {}, {"name": "ada"}, {"message": "hello, world", "times": 3, "on": True, "at": None, "list": [1, 2.5, "x", {}]},
        {"hasPassword": True, "token": None, "secret": "", "apiKey": [], "cookie": {}},
        {"url": "https://host:8080/a@b?c=d", "email": "ada@example.org"},
        {"text": "[not json", "braces": "{}", "pair": ["a", "b"]},
        {"text": json.dumps({"a": 1})},
        {"name": "robot", "value": "r-7"},
    ],
)  # fmt: skip
def test_what_is_no_secret_is_shown_as_it_is(payload):
    shown = masked(Order, payload)

    assert shown.value == payload
    assert not shown.changed


def test_places_are_json_pointers():
    shown = masked(Order, {"a/b": [{"c~d": {"token": HUSH}}], "url": f"https://x:{HUSH}@h"})

    assert shown.places == ["/a~1b/0/c~0d/token", "/url"]


def test_of_a_type_that_is_not_known_only_the_form_is_shown():
    shown = closed({"a": [1, HUSH, {"b": None}], "c": "x"})

    assert shown.value == {"a": [MASK, MASK, {"b": MASK}], "c": MASK}
    assert shown.places == ["/a/0", "/a/1", "/a/2/b", "/c"]


@each(
    "text",
    [
        "a" * 262_144, "token" * 50_000, "token=" * 40_000, "eyJ" * 80_000, "eyJ." * 60_000, "://" * 80_000, "://a" * 60_000, "Bearer " * 30_000,
        "-----BEGIN PRIVATE KEY-----" * 9_000, "cookie:" * 30_000, "[" * 200_000, '{"a":' * 40_000, " " * 262_144, "password\t" * 20_000,
        "password" + "-" * 200_000 + "=x",
    ],
)  # fmt: skip
def test_no_text_of_a_client_takes_long(text):
    shown = masked(Order, {"text": text, "list": [text[:1_000]] * 100})  # with a pattern that repeats itself, minutes

    assert len(shown.value["list"]) == 100


def test_many_secrets_are_masked_each():
    payload = {"list": [{"token": f"secret-number-{number}"} for number in range(6_000)]}
    shown = masked(Order, payload)

    assert len(shown.places) == 6_000
    assert shown.value == {"list": [{"token": MASK}] * 6_000}


@given(st.text(max_size=40))
def test_any_name_can_be_asked(name):
    assert is_suspicious(f"{name}passWord{name}")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(_json, st.sampled_from(["token", "x-api-key", "PASSWORD"]))
def test_a_secret_is_masked_however_deep_it_is(value, name):
    payload = {"outer": [value, {"inner": {name: HUSH, "other": value}}], "text": json.dumps([{name: HUSH}])}

    assert HUSH not in json.dumps(masked(None, payload).value)
