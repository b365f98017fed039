"""Names and examples of the submit body's variants."""

import pydantic
import pytest

import tasks
from dispatch import tasktypes
from dispatch.gateway.contract import examples
from dispatch.tasktypes.payload import Payload
from dispatch.tasktypes.registry import TaskType
from support.cases import each
from support.gateway_fakes import World

TYPES = dict(tasktypes.load(tasks))


class Crate(Payload):
    """What is in a box."""

    weight: float = pydantic.Field(ge=2)
    label: str


class Delivery(Payload):
    """Everything that a payload may need."""

    crates: list[Crate] = pydantic.Field(min_length=1)
    door: Crate | None
    urgent: bool
    extra: int = 3


@each(
    ("types", "names"),
    [
        (["echo", "http.request"], ["SubmitBodyEcho", "SubmitBodyHttpRequest"]),
        (["robot.clean_all-2"], ["SubmitBodyRobotCleanAll2"]),
        (["a.b", "a-b", "a_b"], ["SubmitBodyAB", "SubmitBodyAB2", "SubmitBodyAB3"]),
        (["a.b", "a.b2", "a-b"], ["SubmitBodyAB", "SubmitBodyAB2", "SubmitBodyAB3"]),
    ],
)
def test_each_type_has_a_component_of_its_own_that_is_a_class_name(types, names):
    assert examples.component_names("SubmitBody", types) == dict(zip(types, names, strict=True))


@pytest.mark.parametrize("name", TYPES)
def test_an_example_is_valid_and_has_what_is_required_only(name):
    kind = TYPES[name]
    made = examples.payload(kind)

    kind.payload.model_validate(made)
    required = [field.alias or name for name, field in kind.payload.model_fields.items() if field.is_required()]
    assert list(made) == required


def test_a_field_without_an_example_has_the_smallest_value():
    kind = TaskType("deliver", Delivery, lambda *_: {}, None, 300.0, "Deliver.")

    assert examples.payload(kind) == {
        "crates": [{"weight": 2, "label": "text"}],
        "door": {"weight": 2, "label": "text"},
        "urgent": False,
    }
    Delivery.model_validate(examples.payload(kind))


def test_the_first_example_of_the_page_is_accepted_as_it_stands():
    client = World(types=TYPES).client()
    content = client.get("/openapi.json").json["paths"]["/v1/tasks"]["post"]["requestBody"]["content"]
    first, *_ = content["application/json"]["examples"].values()

    assert first["value"]["type"] == min(TYPES)  # of a checkout with more task types than ours, another than echo
    assert client.post("/v1/tasks", json=first["value"]).status_code == 202
