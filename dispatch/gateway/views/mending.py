"""What a redrive changes of a dead letter, as a request has it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import orjson

from dispatch.config import api_keys, type_scopes
from dispatch.gateway.contract import request_models
from dispatch.gateway.http import auth, validation
from dispatch.gateway.http.problems import FieldError, Problem
from dispatch.protocol.mending import Mend
from dispatch.tasktypes import masking
from dispatch.tasktypes.registry import TaskType

#: What a payload that was copied from where it is shown lacks.
_MASKED = f"{masking.MASK} stands in place of a secret here: give the secret itself."


def read(raw: bytes) -> Mend:
    """The mend that a body asks for, its payload not validated yet. Pure.

    Raises:
        Problem: 400, or 422.
    """
    order = validation.parse(request_models.RedriveBody, validation.parse_object(raw))
    return Mend(order.payload if "payload" in order.model_fields_set else None, fresh=order.fresh)


def permitted(types: Mapping[str, TaskType], name: str, scopes: Collection[str]) -> TaskType:
    """The type of a dead letter whose payload is changed: that is to submit such a task.

    Args:
        types: by name.
        name: the dead letter's.
        scopes: the principal's.

    Raises:
        Problem: 403 without the right to submit one, 422 for a type that is not known here.
    """
    if not type_scopes.permits_type(scopes, api_keys.TASKS_WRITE, name):
        raise auth.insufficient(f"{api_keys.TASKS_WRITE}:{name}")
    if name not in types:
        raise Problem("unknown-task-type", "The dead letter's task type is not known here.", nearest=[])
    return types[name]


def checked(mend: Mend, task_type: TaskType) -> Mend:
    """The mend with its payload as it is sent. Pure.

    Raises:
        Problem: 422 with a pointer to each error.
    """
    given = mend.payload
    if masks := masking.masks_in(given):
        raise validation.invalid(*(FieldError(f"/payload{place}", _MASKED, "masked_secret") for place in masks))
    payload = validation.parse(task_type.payload, given or {}, "/payload", text=orjson.dumps(given))
    plain = payload.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return dataclasses.replace(mend, payload=plain, key=task_type.new_key_of(plain))
