"""Tasks are found by labels and request ids, cheaply, and nothing shows what others have."""

import contextlib
import json

import pytest

from dispatch.errors import StoreFull
from dispatch.protocol import labels, request_ids
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.message import MAX_UNRECORDED, WAKES_AT, Message
from dispatch.protocol.record import ErrorInfo, State
from dispatch.store import index
from dispatch.store.claims import ClaimAnswer, Ticket
from support.redises import single
from support.stores import Stores

BEGIN = 1_700_000_000_000


@pytest.fixture
def stores(settings):
    with contextlib.closing(Stores(settings, timeout=10)) as made:
        yield made


def message(number=0, *, principal="ada", request_id=None, **given):
    headers = {
        "id": new_task_id(), "task": "echo", "x-cycle": 0, "x-seq": 0, "x-attempt": 1, "x-principal": principal,
        "x-accepted-at": BEGIN + number, **({"x-labels": labels.written(given)} if given else {}),
        **({"x-request-id": request_id} if request_id else {}),
    }  # fmt: skip
    return Message(b'[[{"message":"x"}],{},{}]', headers, routing_key="robot.task.dispatch.echo")


def accept(stores, number=0, **given):
    made = message(number, **given)
    stores.tasks.accept(made, max_attempts=4, idempotency_key=None)
    stores.tasks.mark_published(made, queue="q", max_attempts=4, idempotency_key=None)
    return made.task_id


def found(stores, **wanted):
    """The ids of every page."""
    ids, cursor = [], None
    while True:
        page = stores.tasks.list(**{"limit": 200, **wanted}, cursor=cursor)
        ids += [record.task_id for record in page.items]
        cursor = page.next
        if cursor is None:
            return ids


def keys(stores, pattern="*"):
    """Names of keys, without the prefix."""
    prefix = stores.redis.keys.prefix
    return {name.removeprefix(prefix) for name in stores.redis.run(("KEYS", f"{prefix}{pattern}"))[0]}


def test_tasks_are_found_by_their_labels_newest_first(stores):
    robot = [accept(stores, number, robot="r-7", customer=f"c-{number % 2}") for number in range(4)]
    accept(stores, 9)

    assert found(stores, principal="ada", labels={"robot": "r-7"}) == robot[::-1]
    assert found(stores, principal="ada", labels={"robot": "r-7", "customer": "c-1"}) == [robot[3], robot[1]]
    assert found(stores, principal="ada", labels={"robot": "r-7", "customer": "c-2"}) == []
    assert stores.tasks.get(robot[0]).labels == {"robot": "r-7", "customer": "c-0"}


@pytest.mark.parametrize("value", ["*", "r-?", "[a-z]", "a:b", "{x}", "a=b", "%s", "';--", "\\", "r-7:*"])
def test_a_value_is_a_text_and_no_pattern(stores, value):
    other = accept(stores, 1, robot="r-7")
    own = accept(stores, 2, robot=value)

    assert found(stores, principal="ada", labels={"robot": value}) == [own]
    assert found(stores, labels={"robot": "r-7"}) == [other]


def test_a_principal_finds_its_own_and_an_operator_those_of_all(stores):
    own, other = accept(stores, 1, principal="ada", x="1"), accept(stores, 2, principal="bob", x="1")

    assert found(stores, principal="ada", labels={"x": "1"}) == [own]
    assert found(stores, principal="bob", labels={"x": "1"}) == [other]
    assert found(stores, principal="eve", labels={"x": "1"}) == []
    assert found(stores, labels={"x": "1"}) == [other, own]


def test_what_others_have_makes_no_page_of_ones_own_empty(stores, monkeypatch):
    monkeypatch.setattr(index, "SCAN_LIMIT", 4)
    monkeypatch.setattr(index, "_BATCH", 2)
    own = accept(stores, 0, principal="ada", x="1", request_id="rq")
    for number in range(1, 20):
        accept(stores, number, principal="bob", x="1", request_id="rq")
    by_label = stores.tasks.list(principal="ada", labels={"x": "1"})
    by_request = stores.tasks.list(principal="ada", request_id="rq")

    assert [[record.task_id for record in page.items] for page in (by_label, by_request)] == [[own], [own]]
    assert by_label.next is by_request.next is None


def test_a_task_without_a_label_or_a_request_id_of_its_clients_own_has_no_entry(stores):
    request_id = request_ids.new()
    task_id = accept(stores, request_ids.made_at(request_id) - BEGIN, request_id=request_id)

    assert not {name for name in keys(stores) if name.startswith(("label:", "request:"))}
    assert found(stores, principal="ada", request_id=request_id) == [task_id]
    assert found(stores, request_id=request_id) == [task_id]


def test_tasks_are_found_by_a_request_id_of_the_clients_own(stores):
    task_ids = [accept(stores, number, request_id="rq-7") for number in range(3)]
    accept(stores, 7, request_id="rq-70")
    old = request_ids.new()  # which a client has kept for long
    late = accept(stores, request_ids.made_at(old) - BEGIN + 60_000, request_id=old)

    assert found(stores, principal="ada", request_id="rq-7") == task_ids[::-1]
    assert found(stores, request_id="rq-7", state="QUEUED") == task_ids[::-1]
    assert found(stores, principal="ada", request_id=old) == [late]
    assert found(stores, principal="bob", request_id="rq-7") == []


def test_a_time_window_is_from_its_begin_to_before_its_end(stores):
    ids = [accept(stores, number) for number in range(6)]
    labelled = [accept(stores, number, x="1") for number in range(6)]

    assert set(found(stores, since=BEGIN + 2, until=BEGIN + 4)) == {*ids[2:4], *labelled[2:4]}
    assert found(stores, labels={"x": "1"}, since=BEGIN + 2, until=BEGIN + 4) == labelled[2:4][::-1]
    assert found(stores, until=BEGIN) == []
    assert found(stores, since=BEGIN + 4, until=BEGIN + 2) == []
    assert found(stores, since=BEGIN + 5, limit=1) == sorted([ids[5], labelled[5]], reverse=True)
    assert len(found(stores, since=-(10**15), until=10**15)) == 12


def test_all_filters_combine(stores):
    accept(stores, 1, x="1")
    dead, other = message(2, x="1"), message(2, x="1")
    for each, error in ((dead, "boom"), (other, "bang")):
        stores.tasks.accept(each, max_attempts=4, idempotency_key=None)
        stores.dead_letters.record(
            each.with_headers(**{"x-last-error-type": error}), reason="permanent", max_attempts=4
        )

    assert found(stores, labels={"x": "1"}, error_type="boom", state="DEAD_LETTERED", type="echo", until=BEGIN + 3) == [
        dead.task_id
    ]
    assert found(stores, labels={"x": "1"}, error_type="boom", status="PENDING") == []


def test_a_filter_that_matches_nothing_reads_a_bounded_part_and_hands_on_an_honest_cursor(stores):
    accept(stores, -1, x="1")
    fill(stores, 10_000)
    read = count(stores)
    page = stores.tasks.list(principal="ada", state="RUNNING")

    assert (page.items, read()) == ([], index.SCAN_LIMIT)
    assert page.next is not None
    cursor, pages = page.next, 1
    while cursor is not None:
        page = stores.tasks.list(principal="ada", state="RUNNING", cursor=cursor)
        cursor, pages = page.next, pages + 1
    assert (pages, read()) == (6, 10_001)

    read = count(stores)
    assert len(stores.tasks.list(principal="ada", labels={"x": "1"}, state="QUEUED").items) == 1
    assert stores.tasks.list(principal="ada", labels={"x": "2"}).next is None
    assert read() == 2  # the one, when it is chosen and when it is read


def test_entries_of_one_millisecond_are_pages_of_their_own_with_short_cursors(stores):
    fill(stores, 1_000, at=BEGIN)
    ids, cursor, longest = [], None, 0
    while True:
        page = stores.tasks.list(principal="ada", limit=150, cursor=cursor)
        ids += [record.task_id for record in page.items]
        cursor = page.next
        if cursor is None:
            break
        longest = max(longest, len(cursor))

    assert len(ids) == len(set(ids)) == 1_000
    assert longest < 200


def test_a_cursor_of_another_list_or_a_forged_one_shows_nothing_more(stores):
    own = [accept(stores, number, principal="ada", x="1") for number in range(5)]
    accept(stores, 9, principal="bob", x="1")
    others = stores.tasks.list(limit=1).next
    forged = index._write_cursor("inf", "~")

    assert found_from(stores, others, principal="ada", labels={"x": "1"}) == own[::-1]
    assert found_from(stores, forged, principal="ada", until=BEGIN + 2) == own[:2][::-1]
    assert found_from(stores, index._write_cursor("-inf", None), principal="ada") == []


def found_from(stores, cursor, **wanted):
    return [record.task_id for record in stores.tasks.list(limit=200, cursor=cursor, **wanted).items]


def test_entries_whose_record_has_gone_leave_the_indexes(stores):
    task_id = accept(stores, 0, x="1", request_id="rq")
    stores.redis.run(("DEL", stores.redis.keys.task(task_id).record))

    assert found(stores, principal="ada", labels={"x": "1"}) == []
    assert found(stores, request_id="rq") == []
    assert keys(stores, "label:*") == {"label:x=1"}
    assert keys(stores, "request:*") == {"request:ada:rq"}
    assert found(stores, labels={"x": "1"}) == found(stores, principal="ada", request_id="rq") == []
    assert keys(stores, "label:*") | keys(stores, "request:*") == set()


def test_a_task_for_later_is_listed_by_the_time_that_it_was_submitted_for(stores):
    lists = int(stores.settings.idempotency_ttl * 1_000)
    own, wakes_at = request_ids.new(), BEGIN + 3_600_000
    made = message(0, x="1", request_id=own).with_headers(**{WAKES_AT: wakes_at})
    stores.tasks.accept(made, max_attempts=4, idempotency_key=None)
    (ttl,) = stores.redis.run(("PTTL", stores.redis.keys.label("ada", "x=1")))
    before, after = accept(stores, 1, x="1"), accept(stores, 3_600_001, x="1")

    assert found(stores, labels={"x": "1"}) == found(stores) == [after, made.task_id, before]
    assert found(stores, request_id=own) == [made.task_id]
    assert found(stores, labels={"x": "1"}, since=wakes_at, until=wakes_at + 1) == [made.task_id]
    assert found(stores, since=wakes_at, until=wakes_at + 1) == [made.task_id]
    assert lists < ttl <= lists + 3_600_000


def test_an_index_goes_by_itself_and_loses_what_is_too_old(stores):
    lists = int(stores.settings.idempotency_ttl * 1_000)
    accept(stores, 0, x="1")
    newer = accept(stores, lists + 1, x="1")
    (ttl,) = stores.redis.run(("PTTL", stores.redis.keys.label("ada", "x=1")))

    assert found(stores, labels={"x": "1"}) == [newer]
    assert stores.redis.run(("ZCARD", stores.redis.keys.label("ada", "x=1"))) == [1]
    assert 0 < ttl <= lists


def test_what_is_refused_is_found_by_nothing(stores):
    made = message(0, x="1", request_id="rq")
    stores.tasks.accept(made, max_attempts=4, idempotency_key=None)
    stores.tasks.refuse(made, error=ErrorInfo("nack", "no", retryable=True), idempotency_key=None, stored_nowhere=True)

    assert found(stores) == found(stores, labels={"x": "1"}) == found(stores, request_id="rq") == []
    assert not {name for name in keys(stores) if name.startswith(("label:", "request:"))}


def test_a_record_rebuilt_after_a_wipe_has_its_labels_and_is_found_by_them(stores):
    made = message(0, x="1", y="a=b", request_id="rq")
    stores.tasks.accept(made, max_attempts=4, idempotency_key=None)
    stores.redis.run(("DEL", *(stores.redis.keys.prefix + name for name in keys(stores))))
    answer = stores.claims.claim(made, Ticket("owner", "fence", "w@test"), 4).answer

    assert answer is ClaimAnswer.RUN
    assert stores.tasks.get(made.task_id).labels == {"x": "1", "y": "a=b"}
    assert [found(stores, principal="ada", labels={"x": "1"}), found(stores, labels={"y": "a=b"})] == [
        [made.task_id]
    ] * 2
    assert found(stores, request_id="rq") == [made.task_id]
    assert stores.redis.run(("PTTL", stores.redis.keys.label(None, "x=1")))[0] > 0


@pytest.mark.parametrize("text", [7, "", "A=1", "a=1 " * 500, "a=1\n", "b=1 a=1", {"a": "1"}, "x" * 100_000])
def test_labels_that_nothing_of_ours_wrote_are_none(stores, text):
    made = message(0).with_headers(**{"x-labels": text, "x-request-id": "{a}*\n"})
    stores.claims.claim(made, Ticket("owner", "fence", "w@test"), 4)

    assert stores.tasks.get(made.task_id).labels == {}
    assert not {name for name in keys(stores) if name.startswith(("label:", "request:"))}
    assert found(stores, principal="ada") == [made.task_id]


def test_a_message_that_claims_too_much_is_given_no_entry(stores):
    made = message(0, x="1").with_headers(**{"x-seq": MAX_UNRECORDED + 1})

    assert stores.claims.claim(made, Ticket("owner", "fence", "w@test"), 4).answer is ClaimAnswer.FOREIGN
    assert keys(stores, "label:*") == set()


def test_an_entry_that_another_message_made_shows_no_task_that_lacks_the_label(stores):
    task_id = accept(stores, 0)
    stores.redis.run(("ZADD", stores.redis.keys.label("ada", "x=1"), BEGIN, task_id))

    assert found(stores, principal="ada", labels={"x": "1"}) == []


def test_dead_letters_show_their_labels(stores):
    made = message(0, x="1")
    stores.tasks.accept(made, max_attempts=4, idempotency_key=None)
    stores.dead_letters.record(made, reason="permanent", max_attempts=4)
    (dead,) = stores.dead_letters.list().items

    assert dead.to_json()["labels"] == {"x": "1"}


def test_a_full_redis_refuses_a_labelled_task_leaves_no_entry_and_rebuilds_accepted_ones(settings):
    with single() as server, server.client() as client:
        own = settings.model_copy(update={"redis_url": type(settings.redis_url)(server.url)})
        with contextlib.closing(Stores(own, timeout=10)) as stores:
            stores.tasks.list()  # the scripts are there
            client.config_set("maxmemory", 500_000)
            refused = message(0, x="1", request_id="rq")
            with pytest.raises(StoreFull):
                stores.tasks.accept(refused, max_attempts=4, idempotency_key=None)
            left = keys(stores)
            rebuilt = message(1, x="1")
            stores.claims.claim(rebuilt, Ticket("owner", "fence", "w@test"), 4)
            client.config_set("maxmemory", 0)

            assert not {name for name in left if name.startswith(("label:", "request:", "task:"))}
            assert found(stores, labels={"x": "1"}) == [rebuilt.task_id]
            assert stores.tasks.get(rebuilt.task_id).state is State.RUNNING


def fill(stores, number, *, at=None):
    """Many queued tasks of ada's, one each millisecond."""
    for begin in range(0, number, 500):
        commands = []
        for each in range(begin, min(begin + 500, number)):
            task_id, when = new_task_id(), BEGIN + each if at is None else at
            fields = {"type": "echo", "principal": "ada", "state": "QUEUED", "createdAt": when, "revision": 1}
            words = [word for pair in fields.items() for word in pair]
            commands.append(("HSET", stores.redis.keys.task(task_id).record, *words))
            commands += [("ZADD", stores.redis.keys.index(owner), when, task_id) for owner in (None, "ada")]
        stores.redis.gather(*commands)


def count(stores):
    """A function that returns how many records were read since; the handle's reads go through it."""
    read, gather = [0], stores.redis.gather

    def counting(*commands):
        read[0] += sum(command[0] == "HMGET" for command in commands)
        return gather(*commands)

    stores.redis.gather = counting
    return lambda: read[0]


def test_the_text_of_labels_is_in_the_record_and_in_the_message(stores):
    task_id = accept(stores, 0, b="2", a="1")
    names = stores.redis.keys.task(task_id)
    text, stored = stores.redis.run(("HGET", names.record, "labels"), ("GET", names.message))

    assert text == json.loads(stored)["headers"]["x-labels"] == "a=1 b=2"
