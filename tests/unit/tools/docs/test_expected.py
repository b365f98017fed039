"""Outputs are compared as a reader compares them."""

from support.cases import each
from tools.docs.expected import is_shown

ID = "01a219da-42c7-73be-b19f-d09392698047"


@each(
    ("expected", "output"),
    [
        ("one\ntwo\n", "one\n\ntwo"),
        ("a  b\n", "a     b \n"),
        ('{"taskId": "019a…", …, "attempt": 0, …}', f'{{"taskId":"{ID}","type":"echo","attempt":0,"cycle":0}}'),
        ("…\nlast\n", "first\nsecond\nlast\n"),
        ("first\n…\n", "first\n"),
        ("2 passed in …", "2 passed in 0.01s"),
        ("019a… echo … failed …", f"{ID}   echo  1  1/4  failed"),
        ("019a… echo … failed …", f"{ID} echo failed at once"),
        ("a (b) [c] *", "a (b) [c] *"),
    ],
)
def test_what_a_reader_takes_for_the_same_is_the_same(expected, output):
    assert is_shown(expected, output)


@each(
    ("expected", "output"),
    [
        ("one\n", "one\ntwo\n"),
        ("one\ntwo\n", "two\none\n"),
        ("", "surprise\n"),
        ("019a…", "no id"),
        ("taskId 019a…", "taskId 019a…"),
        ('{"status": "PENDING"}', '{"status": "FAIL"}'),
        ("a.c", "abc"),
        ("019a… echo", f"{ID}echo"),
    ],
)
def test_anything_else_is_not(expected, output):
    assert not is_shown(expected, output)


def test_headers_may_have_others_between_them_and_keep_their_order():
    shown = "HTTP/1.1 202 ACCEPTED\nRetry-After: 1\n"
    printed = "HTTP/1.1 202 ACCEPTED\r\nServer: gunicorn\r\nRetry-After: 1\r\n\r\n"

    assert is_shown(shown, printed, gaps=True)
    assert not is_shown(shown, printed)
    assert not is_shown("Retry-After: 1\nHTTP/1.1 202 ACCEPTED\n", printed, gaps=True)
