"""Cases that share a test are all checked, and a failure names each that fails."""

import inspect

import pytest

from support.cases import each


@each(("number", "square"), [(1, 1), (2, 5), (3, 9), (4, 0)])
def squared(number, square, power):
    assert number**power == square


def test_every_case_is_checked_and_each_that_fails_is_named():
    with pytest.raises(AssertionError) as caught:
        squared(power=2)
    text = str(caught.value)

    assert text.startswith("2 of 4 cases fail:\n\nnumber=2, square=5: AssertionError: assert (2 ** 2) == 5")
    assert "number=4, square=0: AssertionError" in text
    assert "number=1" not in text


def test_an_error_in_one_case_is_its_failure_and_the_next_one_is_checked():
    seen = []

    @each("divisor", [0, 1], ids=["by zero", "by one"])
    def divide(divisor):
        seen.append(1 / divisor)

    with pytest.raises(AssertionError, match=r"^1 of 2 cases fail:\n\nby zero: ZeroDivisionError: division by zero$"):
        divide()

    assert seen == [1]


def test_a_case_that_raises_nothing_where_it_should_is_named():
    @each("text", ["1", "x"])
    def refused(text):
        with pytest.raises(ValueError, match="invalid"):
            int(text)

    with pytest.raises(AssertionError, match=r"(?s)^1 of 2 cases fail:\n\ntext='1': Failed: DID NOT RAISE"):
        refused()


def test_other_arguments_are_fixtures():
    assert list(inspect.signature(squared).parameters) == ["power"]


@pytest.mark.parametrize(("cases", "ids"), [([], []), ([1, 2], ["one"])])
def test_a_table_without_cases_or_with_other_names_than_cases_is_refused(cases, ids):
    with pytest.raises(ValueError, match="ids for"):
        each("case", cases, ids)
