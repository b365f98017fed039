"""The steps of a task that waits: what a handler asks for, and what the next step finds."""

from __future__ import annotations

import json
import math
from typing import Any, TypeVar

import pydantic

from dispatch.errors import PermanentError
from dispatch.protocol.message import CHECKPOINT, Message
from dispatch.protocol.sealing import SealError, Sealing
from dispatch.protocol.waits import MAX_SIGNALS_WAITED_FOR, MAX_STATE, AskedWait, is_signal
from dispatch.tasktypes.registry import TaskType
from dispatch.tasktypes.validating import validated
from dispatch.tasktypes.waiting import Wait

Validated = TypeVar("Validated", bound=pydantic.BaseModel)

#: The header travels in one frame with all others, and JSON must not make it longer than its bytes.
_ascii = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def validated_or_dead(model: type[Validated], value: Any, what: str) -> Validated:
    """Validate what a handler is given.

    Args:
        model: its model.
        value: parsed JSON.
        what: ``payload`` or ``state``, for the error.

    Raises:
        PermanentError: ``invalid-payload``, ``invalid-state``: another attempt can't help.
    """
    try:
        return validated(model, value)
    except pydantic.ValidationError as exc:
        places = [
            f"/{'/'.join(map(str, error['loc']))}: {error['msg']}"
            for error in exc.errors(include_input=False, include_context=False, include_url=False)
        ]
        raise PermanentError(f"the {what} is not valid: {'; '.join(places)}", type=f"invalid-{what}") from None


def restored(task_type: TaskType, message: Message, sealing: Sealing) -> pydantic.BaseModel:
    """The state that the last wait left.

    Args:
        task_type: of the code that runs now, which may be newer than that of the last step.
        message: a copy with a checkpoint.
        sealing: opens it.

    Raises:
        PermanentError: ``invalid-state``: this version can't read it; ``undecryptable``: this worker has no key for it.
    """
    if task_type.state is None:
        raise PermanentError("the task has a state, and its type declares none", type="invalid-state")
    try:
        value = json.loads(sealing.unsealed(message.text(CHECKPOINT) or ""))
    except SealError as exc:
        raise PermanentError(f"the state of the last wait: {exc}", type="undecryptable") from exc
    except (ValueError, RecursionError) as exc:
        raise PermanentError("the state is no JSON", type="invalid-state") from exc
    return validated_or_dead(task_type.state, value, "state")


def asked_wait(task_type: TaskType, wait: Wait, longest: int) -> AskedWait:
    """Check what a handler returned.

    Args:
        task_type: the handler's.
        wait: as it was returned.
        longest: seconds that the delay levels can hold a copy; 0 without them.

    Raises:
        PermanentError: ``invalid-result``, ``state-too-large``: no attempt would return anything better.
    """
    if problem := _problem(task_type, wait, longest):
        raise PermanentError(f"the handler returned a wait {problem}", type="invalid-result")
    text = None if wait.state is None else _text(wait.state)
    if text is not None and len(text) > MAX_STATE:
        raise PermanentError(f"the state is {len(text)} bytes of JSON, more than {MAX_STATE}", type="state-too-large")
    return AskedWait(float(wait.seconds), tuple(wait.until), text, bool(wait.same_attempt))


def _text(state: pydantic.BaseModel) -> str:
    try:
        return _ascii(state.model_dump(mode="json", by_alias=True))
    except (TypeError, ValueError, RecursionError) as exc:
        raise PermanentError(f"the state is not JSON: {exc}", type="invalid-result") from exc


def _problem(task_type: TaskType, wait: Wait, longest: int) -> str:
    seconds, until = wait.seconds, wait.until
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds) or seconds < 0:
        return f"of {seconds!r} seconds"
    if seconds > longest:
        return f"of {seconds:g} s, longer than the delay levels can hold a copy ({longest} s, DISPATCH_DELAY_LEVELS)"
    if not isinstance(until, tuple | list) or not all(map(is_signal, until)) or len(until) > MAX_SIGNALS_WAITED_FOR:
        return f"until {until!r}, which is no tuple of at most {MAX_SIGNALS_WAITED_FOR} signals' names"
    if wait.state is None or (task_type.state is not None and isinstance(wait.state, task_type.state)):
        return ""
    declared = f"its type declares {task_type.state.__name__}" if task_type.state else "its type declares none"
    return f"with a state of {type(wait.state).__name__}, and {declared}"
