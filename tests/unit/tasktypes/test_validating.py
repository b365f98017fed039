"""A number that JSON Schema calls an integer is one to a strict model."""

import json
import math
from typing import Annotated, Literal

import pydantic
import pytest
from pydantic import Field

from dispatch.tasktypes.payload import Payload
from dispatch.tasktypes.validating import MAX_EXACT, place, validated
from support.cases import each


class Leg(pydantic.BaseModel):
    steps: int


class Crate(Payload):
    kind: Literal["crate"] = "crate"
    per_layer: Annotated[int, Field(ge=1, le=100)] = 1


class Bag(Payload):
    kind: Literal["bag"] = "bag"
    litres: float = 1.0


class Order(Payload):
    count: int | None = None
    size: int | float = 0
    label: int | str = ""
    legs: list[Leg] = Field(default_factory=list)
    shelf: dict[str, list[int]] = Field(default_factory=dict)
    load: Annotated[Crate | Bag, Field(discriminator="kind")] = Bag()
    flag: bool = False
    free: dict[str, object] = Field(default_factory=dict)


def order(text):
    return validated(Order, json.loads(text))


@each(
    ("text", "name", "value"),
    [
        ('{"count": 1.0}', "count", 1),
        ('{"count": 1e2}', "count", 100),
        ('{"count": -3.0}', "count", -3),
        ('{"count": -0.0}', "count", 0),
        (f'{{"count": {MAX_EXACT}.0}}', "count", MAX_EXACT),
        ('{"label": 7.0}', "label", 7),
        ('{"legs": [{"steps": 1}, {"steps": 2.0}]}', "legs", [Leg(steps=1), Leg(steps=2)]),
        ('{"shelf": {"a/b": [1, 2.0, 3e0]}}', "shelf", {"a/b": [1, 2, 3]}),
        ('{"load": {"kind": "crate", "perLayer": 4.0}}', "load", Crate(per_layer=4)),
        ('{"count": 1.0, "size": 2.0, "free": {"x": 1.0}}', "count", 1),
    ],
)
def test_a_whole_number_is_an_integer_however_it_is_written(text, name, value):
    found = getattr(order(text), name)

    assert found == value
    assert "." not in str(found)


def test_what_may_be_a_fraction_stays_one():
    made = order('{"count": 1.0, "size": 2.0, "load": {"kind": "bag", "litres": 3.0}, "free": {"x": 1.0, "y": -0.0}}')

    assert (type(made.size), type(made.load.litres), type(made.free["x"])) == (float, float, float)
    assert math.copysign(1, made.free["y"]) == -1


@each(
    ("text", "where"),
    [
        ('{"count": 1.5}', ["count"]),
        ('{"count": 1e300}', ["count"]),
        ('{"count": 9007199254740994.0}', ["count"]),
        ('{"flag": 1.0}', ["flag"]),
        ('{"count": 1.0, "legs": [{"steps": 2.5}]}', ["legs", 0, "steps"]),
        ('{"load": {"kind": "crate", "perLayer": 101.0}}', ["load", "perLayer"]),
        ('{"count": "1.0"}', ["count"]),
    ],
)
def test_what_is_no_integer_is_refused_where_it_stands(text, where):
    with pytest.raises(pydantic.ValidationError) as caught:
        order(text)

    assert [place(error["loc"], json.loads(text)) for error in caught.value.errors()] == [where]
