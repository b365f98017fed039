"""Dead letters in groups: counted exactly, the largest first, in bounded memory and time."""

from dispatch.deadletters import groups as module
from dispatch.deadletters.groups import survey_groups
from dispatch.protocol.dead_letters import EVERY_DEAD_LETTER, DeadLetterFilter
from dispatch.protocol.record import Brief, State
from dispatch.store.index import BriefEntry, ScannedBatch


class Scans:
    """A service that scans what it is given."""

    def __init__(self, *batches):
        self.batches, self.read = batches, 0

    def scan(self, _wanted, *, cursor):
        assert cursor in (None, "here")
        for number, batch in enumerate(self.batches, 1):
            self.read = number
            yield ScannedBatch(list(batch), len(batch), str(number) if number < len(self.batches) else None)

    def errors_of(self, task_ids):
        return [f"error of {each}" for each in task_ids]


def letter(task_id, at, error="boom", fingerprint="f", kind="echo"):
    return BriefEntry(task_id, float(at), Brief(kind, State.DEAD_LETTERED, error, fingerprint))


def test_the_largest_group_is_first_with_its_times_and_its_latest_task():
    service = Scans(
        [letter("e", 9, "bang"), letter("d", 7), letter("c", 5)], [letter("b", 5, kind="other"), letter("a", 1)]
    )
    found = survey_groups(service, EVERY_DEAD_LETTER, shown=9)

    assert [(*group.key, group.count, group.first_at, group.last_at, group.example) for group in found.groups] == [
        ("echo", "boom", "f", 3, 1, 7, "d"),
        ("echo", "bang", "f", 1, 9, 9, "e"),
        ("other", "boom", "f", 1, 5, 5, "b"),
    ]
    assert (found.grouped, found.not_shown, found.next) == (5, 0, None)
    assert found.groups[0].error == "error of d"
    assert found.groups[0].filter == DeadLetterFilter("echo", "boom", fingerprint="f")


def test_what_is_not_shown_is_counted():
    found = survey_groups(Scans([letter("a", 1), letter("b", 2), letter("c", 3, "bang")]), EVERY_DEAD_LETTER, shown=1)

    assert ([group.count for group in found.groups], found.grouped, found.not_shown) == ([2], 3, 1)


def test_a_survey_ends_after_so_many_or_so_long_with_a_cursor():
    batches = [[letter("a", 1)], [letter("b", 2)], [letter("c", 3)]]
    by_number, by_time = Scans(*batches), Scans(*batches)

    assert survey_groups(by_number, EVERY_DEAD_LETTER, shown=9, most=2, cursor="here").next == "2"
    assert survey_groups(by_time, EVERY_DEAD_LETTER, shown=9, seconds=0).next == "1"
    assert (by_number.read, by_time.read) == (2, 1)


def test_the_groups_that_are_kept_apart_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_GROUPS", 2)
    service = Scans(
        [letter(str(number), number, fingerprint=str(number)) for number in range(5)], [letter("x", 9, fingerprint="1")]
    )
    found = survey_groups(service, EVERY_DEAD_LETTER, shown=9)

    assert [(group.key.fingerprint, group.count) for group in found.groups] == [("1", 2), ("0", 1)]
    assert (found.grouped, found.not_shown) == (6, 3)


def test_messages_without_a_type_have_no_filter():
    (group,) = survey_groups(Scans([letter("a", 1, kind="")]), EVERY_DEAD_LETTER, shown=9).groups

    assert group.to_json()["filter"] is None
