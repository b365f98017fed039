"""What the client sends."""

import datetime as dt
import decimal
import json
import uuid

import httpx
import pydantic
import pytest

from robot_dispatch_client import Client, DispatchError
from support.api_clients import KEY, KINDS, URL, Script, accepted, make, task
from support.cases import each


class CleaningOrder(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(alias_generator=pydantic.alias_generators.to_camel, validate_by_name=True)

    robot_name: str
    not_before: dt.datetime | None = None


def body(script):
    return json.loads(script.requests[-1].content)


def test_options_are_sent_by_the_apis_names(client_of):
    client = client_of(script := Script(accepted()))
    run_at = dt.datetime(2030, 1, 2, 3, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    client.submit(
        "echo", {"a": 1}, labels={"robot": "r-7"}, run_at=run_at, deadline=dt.timedelta(minutes=1), concurrency_key="r-7",
        options={"lane": "bulk"}, request_id="rq-1", traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
    )  # fmt: skip

    assert body(script) == {
        "type": "echo",
        "payload": {"a": 1},
        "options": {
            "labels": {"robot": "r-7"}, "runAt": "2030-01-02T02:00:00.000Z", "deadlineSeconds": 60, "concurrencyKey": "r-7", "lane": "bulk",
        },
    }  # fmt: skip
    assert (script.sent("x-request-id"), script.sent("traceparent")) == (["rq-1"], [f"00-{'a' * 32}-{'b' * 16}-01"])
    client.submit("echo", {}, delay=0.2)
    assert body(script) == {"type": "echo", "payload": {}, "options": {"delaySeconds": 1}}
    client.submit("echo", {})
    assert body(script) == {"type": "echo", "payload": {}}


def test_what_pydantic_can_write_is_a_payload(client_of):
    client = client_of(script := Script(accepted()))
    client.submit("clean", CleaningOrder(robot_name="ü\u2028", not_before=dt.datetime(2030, 1, 1, tzinfo=dt.UTC)))
    model = body(script)["payload"]
    client.submit("clean", {"id": uuid.UUID(int=1), "at": dt.date(2030, 1, 1), "sum": decimal.Decimal("1.5")})

    assert model == {"robotName": "ü\u2028", "notBefore": "2030-01-01T00:00:00Z"}
    assert body(script)["payload"] == {"id": str(uuid.UUID(int=1)), "at": "2030-01-01", "sum": "1.5"}


@each("value", [float("nan"), float("inf"), {"a": [float("nan")]}])
def test_numbers_that_are_no_json_are_refused_and_nothing_is_sent(client_of, value):
    client = client_of(script := Script(accepted()))
    with pytest.raises(ValueError, match="JSON compliant"):
        client.submit("echo", {"value": value})

    assert script.requests == []


def test_a_time_without_a_zone_is_refused(client_of):
    with pytest.raises(ValueError, match="time zone"):
        client_of(Script(accepted())).submit("echo", {}, run_at=dt.datetime(2030, 1, 1))  # noqa: DTZ001


def test_hostile_ids_stay_in_their_segment(client_of):
    client = client_of(script := Script(httpx.Response(200, json=task())))
    client.get("../dead-letters/1?x=1#y")

    assert script.requests[0].url.raw_path == b"/v1/tasks/..%2Fdead-letters%2F1%3Fx%3D1%23y"
    for dots in ("", ".", ".."):
        with pytest.raises(ValueError, match="no id"):
            client.get(dots)


def test_the_address_may_have_a_path():
    made = make("sync", "https://proxy.test/dispatch/", transport=(script := Script(httpx.Response(200, json=task()))))
    made.get("a")
    made.close()

    assert str(script.requests[0].url) == "https://proxy.test/dispatch/v1/tasks/a"


def test_lists_go_page_by_page_with_their_filter(client_of):
    pages = [
        {"items": [task("a"), task("b")], "next": "c1"},
        {"items": [], "next": "c2"},
        {"items": [task("c")], "next": None},
    ]
    client = client_of(script := Script(*(httpx.Response(200, json=page) for page in pages)))
    since = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    found = list(client.list(type="echo", labels={"a": "1", "b": "2"}, since=since, page_size=2))

    assert [each.task_id for each in found] == ["a", "b", "c"]
    assert [request.url.params.get("cursor") for request in script.requests] == [None, "c1", "c2"]
    sent = script.requests[2].url.params
    assert (sent.get_list("label"), sent["since"], sent["limit"]) == (["a=1", "b=2"], "2026-01-01T00:00:00.000Z", "2")


def test_a_list_is_read_no_further_than_it_is_used(client_of):
    client = client_of(script := Script(httpx.Response(200, json={"items": [task("a")], "next": "c1"})))
    next(iter(client.list()))

    assert len(script.requests) == 1


def test_the_context_is_asked_for_at_each_call(client_of):
    given = iter([{"X-Request-Id": "rq-a", "traceparent": "00-x"}, {"x-request-id": "not valid!"}])
    client = client_of(script := Script(httpx.Response(200, json=task())), context=lambda: next(given))
    client.get("a")
    client.get("a")

    first, second = script.sent("x-request-id")
    assert (first, script.sent("traceparent")) == ("rq-a", ["00-x", None])
    assert second.isalnum()


# --- the API key -----------------------------------------------------------------------------------
def test_the_key_is_sent_and_shown_nowhere(client_of):
    client = client_of(script := Script(httpx.ConnectError("refused"), httpx.Response(200, json=task())))
    client.get("a")

    assert script.sent("authorization") == [f"Bearer {KEY}"] * 2
    assert repr(client).endswith(f"Client('{URL}')")
    shown = repr([client, vars(client), vars(getattr(client, "_made", client)), getattr(client, "_http", None)])
    assert KEY not in shown


def test_no_error_has_the_key(client_of):
    for answer in (httpx.ConnectError("x"), httpx.Response(401), httpx.Response(200, text="x")):
        with pytest.raises(DispatchError) as caught:
            client_of(Script(answer)).get("a")
        error = caught.value
        while error is not None:
            assert KEY not in f"{error!r} {error} {vars(error)}"
            error = error.__cause__ or error.__context__


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_that_can_be_no_header_is_refused_without_quoting_it(kind):
    for key in ("rk_a_top\nsecret", "rk_a_top secret", "rk_a_tópsecret"):
        with pytest.raises(ValueError, match="API key") as caught:
            make(kind, api_key=key)
        assert "secret" not in str(caught.value)


def test_address_and_key_come_from_the_environment(monkeypatch):
    script = Script(httpx.Response(200, json=task()))
    monkeypatch.setenv("ROBOT_DISPATCH_URL", URL)
    monkeypatch.setenv("ROBOT_DISPATCH_API_KEY", f"{KEY}\n")
    with Client(transport=script) as client:
        client.get("a")
    with Client(transport=script, api_key="") as client:
        client.get("a")

    assert script.sent("authorization") == [f"Bearer {KEY}", None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://x", "http://", "http://user:pass-word@x", "http://[::1"])
def test_an_address_that_is_none_is_refused_without_quoting_it(kind, url, monkeypatch):
    monkeypatch.delenv("ROBOT_DISPATCH_URL", raising=False)
    with pytest.raises(ValueError, match="address") as caught:
        make(kind, url)

    assert "pass-word" not in str(caught.value)
