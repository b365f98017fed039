"""Waiting for a task, and following its hops, through outages."""

import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_dispatch_client import ConnectionFailed, StreamCapacity, TaskExpired, UnexpectedResponse, WaitTimeout, sse
from support.api_clients import Script, ended, refused, task
from support.cases import each


# --- wait -----------------------------------------------------------------------------------------
def held(body=None, seconds=20, clock=None, **headers):
    """A poll that the API held."""

    def answer(_):
        if clock is not None:
            clock.now += seconds
        more = {"Preference-Applied": f"wait={seconds}", "Retry-After": "1", **headers}
        return httpx.Response(304, headers=more) if body is None else httpx.Response(200, json=body, headers=more)

    return answer


def test_a_wait_polls_until_the_end_without_a_pause(client_of, clock):
    running = task(status="RUNNING", state="RUNNING", revision=2)
    script = Script(httpx.Response(200, json=task()), held(), held(running), held(), held(ended(result={"a": 1})))
    found = client_of(script).wait("a")

    assert (found.result, clock.slept) == ({"a": 1}, [])
    assert script.sent("prefer") == [None, *["wait=20"] * 4]
    assert script.sent("if-none-match") == [None, '"1"', '"1"', '"2"', '"2"']


def test_a_task_may_be_given_itself_and_may_have_ended(client_of):
    client = client_of(script := Script(httpx.Response(200, json=ended())))
    task_of = client.get("a")

    assert client.wait(task_of).succeeded
    assert client.wait("a", timeout=0).succeeded
    assert len(script.requests) == 3


def test_a_poll_that_was_not_held_is_followed_by_a_pause_of_retry_after(client_of, clock):
    busy = httpx.Response(200, json=task(), headers={"Retry-After": "7"})
    late = httpx.Response(304, headers={"Retry-After": "1800"})
    client_of(Script(busy, busy, late, httpx.Response(200, json=ended()))).wait("a")

    assert clock.slept == [7, 60]


def test_a_wait_ends_in_time(client_of, clock):
    script = Script(httpx.Response(200, json=task()), held(clock=clock), held(seconds=9, clock=clock), held(seconds=1))
    with pytest.raises(WaitTimeout) as caught:
        client_of(script).wait("a", timeout=29.5)

    assert script.sent("prefer") == [None, "wait=20", "wait=9", None]
    assert (caught.value.task.state, clock.now) == ("QUEUED", 29.5)


def test_a_wait_goes_on_through_an_outage(client_of):
    lost, down = httpx.ReadError("cut"), httpx.ConnectError("refused")
    script = Script(
        lost, httpx.Response(200, json=task()), down, down, refused(503, "store-unavailable", 2), held(ended())
    )

    assert client_of(script).wait("a", timeout=60).succeeded


def test_an_outage_at_the_end_of_a_wait_is_its_end(client_of, clock):
    script = Script(httpx.Response(200, json=task()), httpx.ConnectError("refused"))
    with pytest.raises(WaitTimeout) as caught:
        client_of(script).wait("a", timeout=10)

    assert isinstance(caught.value.__cause__, ConnectionFailed)
    assert clock.now <= 10


def test_a_wait_without_an_end_ends_with_an_outage_that_lasts(client_of, clock):
    with pytest.raises(ConnectionFailed):
        client_of(Script(httpx.Response(200, json=task()), httpx.ConnectError("refused"))).wait("a")

    assert 40 < clock.now < 60


def test_a_wait_for_what_is_gone_is_an_error(client_of):
    with pytest.raises(TaskExpired):
        client_of(Script(httpx.Response(200, json=task()), refused(410, "task-expired"))).wait("a", timeout=60)


# --- stream ---------------------------------------------------------------------------------------
def event(seq, kind="progress", **more):
    return f"id: {seq}\nevent: {kind}\ndata: {json.dumps({'seq': seq, 'kind': kind, **more}, ensure_ascii=False)}\n\n"


class Cut(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A stream that breaks."""

    def __init__(self, *pieces):
        self._pieces = pieces

    def __iter__(self):
        yield from self._pieces
        raise httpx.ReadError("cut")

    async def __aiter__(self):
        for piece in self._pieces:
            yield piece
        raise httpx.ReadError("cut")


def stream(*events, cut=False):
    data = [each.encode() for each in ("retry: 2000\n\n: comment\n\n", *events)]

    def answer(_):
        headers = {"Content-Type": "text/event-stream; charset=utf-8"}
        return httpx.Response(200, headers=headers, **({"stream": Cut(*data)} if cut else {"content": b"".join(data)}))

    return answer


END = httpx.Response(204)


def test_a_stream_yields_each_hop_once_over_reconnections(client_of, clock):
    half = event(3)[:20]
    script = Script(
        stream(event(1, "accepted"), event(2), half, cut=True), stream(event(2), event(3)), stream(event(4, "succeeded")), END,
    )  # fmt: skip
    found = list(client_of(script).stream("a"))

    assert [hop.seq for hop in found] == [1, 2, 3, 4]
    assert script.sent("last-event-id") == [None, "2", "3", "4"]
    assert script.sent("accept") == ["text/event-stream"] * 4
    assert len(clock.slept) == 4 - 1
    assert clock.slept[1:] == [0, 0]


def test_a_stream_begins_after_what_is_known(client_of):
    script = Script(stream(event(7), event(8)), END)

    assert [hop.seq for hop in client_of(script).stream("a", after=7)] == [8]
    assert script.sent("last-event-id") == ["7", "8"]


def test_a_stream_that_closes_without_an_event_is_opened_again_after_the_time_that_the_api_asks_for(client_of, clock):
    assert list(client_of(Script(stream(), stream(), END)).stream("a")) == []
    assert clock.slept == [2, 2]


def test_a_refused_stream_is_opened_again_after_retry_after(client_of, clock):
    script = Script(refused(503, "stream-capacity", 5), httpx.ConnectError("refused"), stream(event(1)), END)

    assert len(list(client_of(script).stream("a"))) == 1
    assert 5 <= clock.slept[0] < 6


def test_a_stream_gives_up_after_the_total_time_without_a_sign_of_life(client_of, clock):
    script = Script(stream(event(1), cut=True), refused(503, "stream-capacity", 5))
    seen = []
    with pytest.raises(StreamCapacity):
        seen.extend(client_of(script).stream("a"))

    assert 40 < clock.now < 60
    with pytest.raises(TaskExpired):
        list(client_of(Script(refused(410, "task-expired"))).stream("a"))
    with pytest.raises(UnexpectedResponse):
        list(client_of(Script(httpx.Response(200, json=[]))).stream("a"))


def test_an_event_that_is_no_hop_is_an_error_that_does_not_quote_it(client_of):
    with pytest.raises(UnexpectedResponse) as caught:
        list(client_of(Script(stream("data: secret-of-a-page\n\n"))).stream("a"))

    assert "secret" not in f"{caught.value} {caught.value.__cause__}"


# --- server-sent events ---------------------------------------------------------------------------
def test_data_may_have_characters_that_python_takes_for_line_ends(client_of):
    text = "a\u2028b\x85c\u2029d ü"
    (hop,) = client_of(Script(stream(event(1, message=text)), END)).stream("a")

    assert hop.details == {"message": text}


LINES = st.lists(
    st.sampled_from(
        [
            "data: a",
            "data:b\u2028",
            "data",
            "id: 7",
            "event: x",
            ": c",
            "",
            "retry: 5",
            "retry: x",
            "other: 1",
            "id: \0",
        ]
    )
)


@given(LINES, st.sampled_from(["\n", "\r", "\r\n"]), st.lists(st.integers(0, 60)))
def test_events_are_the_same_however_the_bytes_come(lines, end, cuts):
    data = "".join(line + end for line in [*lines, "", "data: last", ""]).encode()
    whole = sse.Decoder()
    expected = whole.feed(data) + whole.feed(b":")
    pieces = sse.Decoder()
    at, found = 0, []
    for cut in [*sorted(cuts), len(data)]:
        found += pieces.feed(data[at:cut])
        at = max(at, cut)
    found += pieces.feed(b":")

    assert found == expected
    assert expected[-1].data == "last"
    assert whole.retry == pieces.retry


@each(
    ("text", "data"),
    [("data: a\ndata:  b\n\n", ["a\n b"]), ("data: a\n", []), ("event: x\n\n", []), ("data\n\n", [""]), (":\n\n", [])],
)
def test_events_are_as_the_format_has_them(text, data):
    assert [event.data for event in sse.Decoder().feed(text.encode())] == data
