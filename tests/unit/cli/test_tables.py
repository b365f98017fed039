"""Tables that fit a terminal, and ages that a person reads."""

from dispatch.cli import letters
from dispatch.cli.output import counted
from dispatch.cli.tables import age, shortened, table
from dispatch.protocol.message import Message
from dispatch.protocol.record import ErrorInfo, Record, State
from dispatch.protocol.sealing import UNSEALED
from support.cases import each

ROW = ("01a219cf-137b-726f-90cd-7ccad7302f70", "upstream-rejected: the robot API responded 404: no robot R-1")
HEADS = ("TASK", "ERROR")


@each(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.4, "0s"),
        (-3, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (200, "3m 20s"),
        (3_600, "1h"),
        (3_725, "1h 2m"),
        (86_400 + 3_599, "1d"),
        (2 * 86_400 + 4 * 3_600, "2d 4h"),
        (400 * 86_400, "400d"),
    ],
)
def test_an_age_has_its_two_largest_units(seconds, text):
    assert age(seconds) == text


@each(("number", "text"), [(0, "0 jobs"), (1, "1 job"), (2, "2 jobs"), (1_234, "1,234 jobs")])
def test_a_number_agrees_with_its_noun(number, text):
    assert counted(number, "job") == text


def test_a_wide_terminal_and_a_file_show_everything():
    assert ROW[1] in table(HEADS, [ROW], cut="ERROR", width=200)
    assert ROW[1] in table(HEADS, [ROW], cut="ERROR")


def test_a_narrower_terminal_cuts_the_text_and_never_the_id():
    lines = table(HEADS, [ROW], cut="ERROR", width=70).splitlines()

    assert max(map(len, lines)) == 70
    assert lines[1].startswith(ROW[0])
    assert lines[1].endswith("…")


def test_on_a_very_narrow_terminal_the_text_has_a_line_of_its_own():
    lines = table(HEADS, [ROW], cut="ERROR", width=50).splitlines()

    assert [lines[0], lines[2]] == ["TASK", ROW[0]]
    assert lines[3].startswith("  upstream-rejected")
    assert len(lines[3]) == 50


def test_a_text_of_many_lines_is_one_line_in_a_table():
    assert shortened("a\n  b\tc", 80) == "a b c"


def test_what_a_terminal_would_obey_is_not_printed():
    text = table(HEADS, [("id", "\x1b]0;owned\x07 \x1b[2J\x9b31m red\nsecond")])

    assert text.splitlines()[1].startswith("id    \ufffd]0;owned\ufffd")
    assert all(each.isprintable() for line in text.splitlines() for each in line)


def test_a_dead_letter_for_people_has_its_reason_its_letter_and_the_next_command():
    died = {"error": ErrorInfo("robot-failed", "stuck\x1b[2J", True), "dead_reason": "permanent"}
    record = Record("t-1", "echo", "ada", State.DEAD_LETTERED, 0, 3, 2, 4, 7, 0, 0, **died)
    letter = Message(
        b'[[{"robot": "R-1"}], {}, {}]', {"id": "t-1", "x-dead-reason": "permanent", "eta": None}, routing_key="k"
    )
    shown = letters.whole("t-1", record, letter, [{"at": "now", "kind": "failed", "attempt": 1}], {}, UNSEALED)
    text = letters.page(record, shown)

    assert shown["robot"] is None  # the record has no message
    for part in (
        "robot-failed: stuck\ufffd[2J",
        "routing key    k",
        "x-dead-reason  permanent",
        '"robot": "R-1"',
        "dlq redrive t-1",
    ):
        assert part in text
    assert "\n  eta " not in text
