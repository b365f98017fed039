"""Forms made from JSON Schemas: what they have, what comes back, and that no secret goes where it was not."""

import enum
from typing import Literal

import pydantic
import pytest

from dispatch.gateway.http.problems import FieldError
from dispatch.gateway.ops.schema_form import ABSENT, SchemaForm, Source, moved, restored, with_errors
from dispatch.tasktypes.masking import MASK, masked
from dispatch.tasktypes.payload import Payload, Secret
from support.cases import each


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Step(Payload):
    area: str
    passes: int = 1


class Login(Payload):
    user: str
    password: Secret


class Order(Payload):
    robot: str = pydantic.Field(description="Its serial number.")
    colour: Colour = Colour.RED
    mode: Literal["wet", "dry"] | None = None
    weight: float = 1.0
    urgent: bool = False
    steps: tuple[Step, ...] = ()
    tags: tuple[str, ...] = ()
    login: Login | None = None
    headers: dict[str, Secret] = pydantic.Field({})
    either: int | str | None = None
    at: pydantic.AwareDatetime | None = None


SCHEMA = Order.model_json_schema()
GIVEN = {
    "robot": "R-1", "colour": "blue", "weight": 2.5, "urgent": True, "steps": [{"area": "hall", "passes": 2}, {"area": "lobby"}],
    "tags": ["a", "b"], "login": {"user": "ada", "password": "hunter22"}, "headers": {"X-One": "secret-one", "X-Two": "secret-two"},
    "either": 7, "at": "2026-11-27T17:00:00Z",
}  # fmt: skip


def source(value=GIVEN):
    return Source(masked(Order, value).value, value)


def form(value=GIVEN):
    return SchemaForm(SCHEMA, source(value))


def filled(made, **changes):
    """What a browser sends of a form that is sent as it came."""
    sent = {}
    for one in made.inputs().walk():
        if one.kind == "list":
            sent[f"n:{one.pointer}"] = str(len(one.inputs))
        elif one.kind not in ("group", "map"):
            sent[f"p:{one.pointer}"] = "\r\n".join(one.text.splitlines()) if one.text else ""
    return sent | changes


def by_pointer(made, given=None):
    return {one.pointer: one for one in made.inputs(given).walk()}


def test_each_kind_of_value_has_its_input():
    kinds = {at: one.kind for at, one in by_pointer(form()).items()}

    assert kinds["/robot"] == "text"
    assert (kinds["/colour"], kinds["/mode"], kinds["/urgent"]) == ("choice", "choice", "choice")
    assert (kinds["/weight"], kinds["/steps/0/passes"]) == ("number", "number")
    assert (kinds["/steps"], kinds["/steps/1"], kinds["/headers"], kinds["/login"]) == ("list", "group", "map", "group")
    assert (kinds["/login/password"], kinds["/headers/X-One"]) == ("secret", "secret")
    assert kinds["/either"] == "json"


def test_no_input_has_a_secret_or_its_mask():
    texts = " ".join(one.text for one in form().inputs().walk())

    assert not any(text in texts for text in ("hunter22", "secret-one", MASK, "*"))


def test_a_form_that_is_sent_as_it_came_is_the_same_value():
    made = form()

    assert made.value(filled(made)) == GIVEN
    assert sorted(made.kept) == ["/headers/X-One", "/headers/X-Two", "/login/password"]
    assert made.errors == []


@each(
    "value",
    [
        {"robot": "R-1"},
        {"robot": "line\nline\r\nline"},
        {"robot": "R-1", "mode": None},
        {"robot": "R-1", "tags": [], "headers": {}},
        {"robot": "", "tags": ["", "x"]},
        {"robot": "R-1", "weight": 3},
        {"robot": 12},
        {"robot": "R-1", "more": {"than": ["is", "known"]}},
        {"robot": "R-1", "steps": "no list"},
        {"robot": "R-1", "colour": "green"},
        {"robot": "R-1", "login": {"user": "a", "password": ["x"]}},
        {"robot": "R-1", "a/b~c": 1, "headers": {"a/b~c": "xyzw"}},
    ],
)
def test_whatever_there_is_comes_back_as_it_was(value):
    made = form(value)

    assert made.value(filled(made)) == value


def test_changes_are_of_the_schemas_types():
    made = form()
    value = made.value(
        filled(
            made,
            **{
                "p:/robot": "R-2",
                "p:/colour": "red",
                "p:/weight": "4",
                "p:/urgent": "false",
                "p:/steps/0/passes": "3",
                "p:/either": '"text"',
                "p:/mode": "wet",
            },
        )
    )

    assert value["robot"] == "R-2"
    assert (value["colour"], value["weight"], value["urgent"], value["mode"]) == ("red", 4, False, "wet")
    assert value["steps"][0] == {"area": "hall", "passes": 3}
    assert value["either"] == "text"


def test_what_is_no_number_is_left_to_the_validation_and_what_is_no_json_is_an_error():
    made = form()
    value = made.value(filled(made, **{"p:/weight": "much", "p:/either": "{"}))

    assert value["weight"] == "much"
    assert [(one.pointer, one.code) for one in made.errors] == [("/either", "malformed_json")]


@each("text", ["inf", "nan", "1e999", "-inf"])
def test_no_number_is_one_that_json_has_not(text):
    made = form()

    assert made.value(filled(made, **{"p:/weight": text}))["weight"] == text


def test_a_secret_is_replaced_or_removed():
    made = form()
    value = made.value(filled(made, **{"p:/login/password": "new-one", "remove:/headers/X-One": "1"}))

    assert value["login"] == {"user": "ada", "password": "new-one"}
    assert value["headers"] == {"X-Two": "secret-two"}
    assert made.kept == ["/headers/X-Two"]


def test_an_item_that_is_removed_takes_no_others_secret():
    class Box(Payload):
        logins: list[Login]

    value = {"logins": [{"user": "ada", "password": "one-1"}, {"user": "bob", "password": "two-2"}]}
    made = SchemaForm(Box.model_json_schema(), Source(masked(Box, value).value, value))

    assert made.value(filled(made, **{"remove:/logins/0": "1"})) == {"logins": [value["logins"][1]]}


def test_rows_and_members_are_added():
    made = form()
    given = filled(made, **{"n:/tags": "3", "p:/tags/2": "c", "name:/headers": "X-New", "value:/headers": "fresh"})

    assert len(by_pointer(made, given)["/tags"].inputs) == 3
    assert made.value(given)["tags"] == ["a", "b", "c"]
    assert made.value(given)["headers"]["X-New"] == "fresh"
    assert made.value(filled(made, **{"n:/tags": "9"}))["tags"] == ["a", "b"]


@each("rows", ["-1", "x", "99999", "²", ""])
def test_a_number_of_rows_that_is_not_in_the_form_is_none(rows):
    assert len(by_pointer(form(), {"n:/tags": rows})["/tags"].inputs) == 2


def test_an_optional_group_that_is_left_empty_is_not_there():
    made = SchemaForm(SCHEMA, Source(ABSENT, ABSENT))

    assert made.value(filled(made, **{"p:/robot": "R-1"})) == {"robot": "R-1"}


def test_a_schema_that_contains_itself_ends():
    class Tree(Payload):
        name: str
        children: "tuple[Tree, ...]" = ()
        left: "Tree | None" = None

    made = SchemaForm(Tree.model_json_schema(), Source(ABSENT, ABSENT))

    assert 3 < sum(1 for _ in made.inputs().walk()) < 200


def test_what_was_typed_is_there_again_but_for_secrets():
    inputs = by_pointer(form(), {"p:/robot": "R-9", "p:/login/password": "typed", "remove:/tags/0": "1"})

    assert (inputs["/robot"].text, inputs["/login/password"].text, inputs["/tags/0"].removed) == ("R-9", "", True)


# --- JSON ------------------------------------------------------------------------------------------
def put_back(given, value=GIVEN):
    kept = []
    return restored(given, source(value), (), kept), kept


def test_json_that_is_sent_as_it_was_shown_is_the_same_value():
    assert put_back(source().shown)[0] == GIVEN


def test_a_mask_in_its_place_is_its_secret_and_anywhere_else_it_stays_a_mask():
    value, kept = put_back({
        "robot": MASK, "login": {"user": "eve", "password": MASK}, "headers": {"X-Other": MASK, "X-Two": MASK},
    })  # fmt: skip

    assert value == {"robot": MASK, "login": {"user": "eve", "password": "hunter22"}, "headers": {"X-Other": MASK, "X-Two": "secret-two"}}  # fmt: skip
    assert kept == ["/login/password", "/headers/X-Two"]


LIST = {"headers": [{"name": "X-Token", "value": "first-secret"}, {"name": "X-Secret", "value": "other-secret"}]}


def shown_list(*items):
    kept = []
    shown = masked(None, LIST)
    return restored({"headers": list(items)}, Source(shown.value, LIST), (), kept)["headers"]


@each(
    ("items", "expected"),
    [
        ([{"name": "X-Secret", "value": MASK}], ["other-secret"]),
        ([{"name": "X-Secret", "value": MASK}, {"name": "X-Token", "value": MASK}], ["other-secret", "first-secret"]),
        ([{"name": "X-Evil", "value": MASK}, {"name": "X-Secret", "value": MASK}], [MASK, "other-secret"]),
        ([{"name": "X-Token", "value": MASK}] * 2, ["first-secret", "first-secret"]),
    ],
)
def test_an_item_of_a_list_has_its_own_secret_or_none(items, expected):
    assert [one["value"] for one in shown_list(*items)] == expected


def test_of_items_that_look_alike_each_has_its_own_in_its_place_only():
    value = {"tokens": ["one-secret", "two-secret"]}
    was = Source({"tokens": [MASK, MASK]}, value)

    assert restored({"tokens": [MASK, MASK]}, was, (), []) == value
    assert restored({"tokens": [MASK, "new"]}, was, (), []) == {"tokens": ["one-secret", "new"]}
    assert restored({"tokens": [MASK]}, was, (), []) == {"tokens": [MASK]}


# --- a secret that would go elsewhere --------------------------------------------------------------
class Call(Payload):
    url: str
    headers: dict[str, Secret] = pydantic.Field({})


CALL = {"url": "https://robots.example/orders", "headers": {"Authorization": "Bearer abc"}}


@each(
    "url",
    [
        "https://evil.example/orders",
        "//evil.example",
        "https://robots.example.evil.example/",
        "https://evil.example\\@robots.example/",
        "https://robots.example@evil.example/",
        "https://robots.example:8080/",
        "see https://robots.example/ and https://evil.example/",
    ],
)
def test_a_secret_that_was_not_shown_stays_only_with_the_hosts_that_were_there(url):
    errors = moved({**CALL, "url": url}, Source(CALL, CALL), ["/headers/Authorization"])

    assert [(one.pointer, one.code) for one in errors] == [("/headers/Authorization", "masked_secret")]
    assert moved({**CALL, "url": url}, Source(CALL, CALL), []) == []


@each("url", ["https://robots.example/others?a=b", "https://ROBOTS.example/orders", "no url"])
def test_a_payload_with_the_same_host_keeps_its_secrets(url):
    assert moved({**CALL, "url": url}, Source(CALL, CALL), ["/headers/Authorization"]) == []


# --- errors ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("at", "place"), [("/robot", "/robot"), ("/steps/0/area/deep", "/steps/0/area"), ("/steps/7", "/steps")]
)
def test_an_error_is_at_its_input(at, place):
    made = form().inputs()

    assert with_errors(made, [FieldError(at, "It is wrong.", "x"), FieldError("/nowhere", "Lost.", "y")])[0].detail == (
        "Lost."
    )
    assert next(one for one in made.walk() if one.pointer == place).error == "It is wrong."
