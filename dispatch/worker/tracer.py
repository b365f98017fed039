"""What a child does with a delivery: as Celery's tracer, without what no task type of ours has.

Celery's own remains for what needs it: links that follow a success, and receivers of its signals, such as the instrumentation
of traces.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import signals, states
from celery._state import _task_stack
from celery.app.task import Context
from celery.app.trace import TraceInfo, fast_trace_task, traceback_clear
from celery.exceptions import Ignore
from celery.utils.saferepr import saferepr

from dispatch.protocol.retry import AttemptFailed
from dispatch.telemetry import logs
from dispatch.worker.outcomes import RESULT, reported

#: Whether it failed; what Celery's events show of the result, or the failure; seconds; the result's JSON, if the main process
#: has to record it.
Report = tuple[Any, ...]

_tasks: dict[str, Any] = {}


def prepare(tasks: Mapping[str, Any]) -> None:
    """Set Celery's tasks by name, before the children are forked."""
    _tasks.update(tasks)


def trace(name: str, task_id: str, request: dict[str, Any], body: Any) -> Report:
    """Run a delivery.

    Args:
        name: the task type's.
        task_id: the task.
        request: Celery's, with our message and ticket in it.
        body: args, kwargs and links.
    """
    result: list[str] = []
    request[RESULT] = result
    try:
        _, _, links = body
        if links["callbacks"] or links["chain"] or _observed():
            failed, shown, seconds = fast_trace_task(name, task_id, request, body, None, None)
        else:
            failed, shown, seconds = _traced(_tasks[name], request, body)
        return (failed, shown, seconds) if failed else (failed, shown, seconds, *result)
    finally:
        logs.clear()


_OBSERVED = (signals.task_prerun, signals.task_postrun, signals.task_success, signals.task_failure)


def _observed() -> bool:
    return any(signal.receivers for signal in _OBSERVED)


def _traced(task: Any, request: dict[str, Any], body: Any) -> tuple[int, Any, float]:
    began = time.monotonic()
    args, kwargs, _ = body
    context = Context(request, args=args, kwargs=kwargs, called_directly=False, is_eager=False)
    _task_stack.push(task)
    task.request_stack.push(context)
    try:
        result = task.run(*args)
        return 0, _shown(result, task.resultrepr_maxsize), time.monotonic() - began
    except AttemptFailed as exc:
        return 1, reported(exc), 0.0
    except Ignore as exc:
        failure = TraceInfo(states.IGNORED, exc)
        shown = ExceptionInfo(internal=True)
        failure.handle_ignore(task, context)
        traceback_clear(exc)
        return 1, shown, 0.0
    except Exception as exc:  # noqa: BLE001 - Celery's own code for a failure
        shown = TraceInfo(states.FAILURE, exc).handle_error_state(task, context)
        traceback_clear(exc)
        return 1, shown, 0.0
    finally:
        _task_stack.pop()
        task.request_stack.pop()


def _shown(result: Any, longest: int) -> str:
    """What Celery's events show of a result: of one that is short its own text, which takes a tenth of the time of Celery's."""
    text = repr(result)
    return text if len(text) <= longest else str(saferepr(result, longest))
