"""``/v1/callbacks/{token}``: signals of systems that have no API key; their URL permits them to send one signal of one task."""

from __future__ import annotations

import hashlib
import time

from dispatch.control.refusals import TaskTerminal, UnknownTask
from dispatch.control.signalling import Signaller
from dispatch.gateway.contract import models
from dispatch.gateway.http import context
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.gateway.views.signals import read_payload, written
from dispatch.protocol.callbacks import CallbackSecrets, ExpiredToken, InvalidToken
from dispatch.store.signals import NewSignal

#: Who sends what comes by a callback, in hops.
BY = "callback"


class CallbackViews:
    """The operation of callbacks; the token in its path is all the authentication that it has.

    Args:
        secrets: verify tokens.
        signaller: records signals.
    """

    def __init__(self, secrets: CallbackSecrets, signaller: Signaller) -> None:
        self._secrets = secrets
        self._signaller = signaller

    @operation(
        Operation(
            "POST", "/v1/callbacks/{token}", "callBack", "Callbacks", "Signal a task without an API key",
            (ResponseSpec(202, "Recorded; the wait of a task that waits for it is over.", models.CallbackModel),),
            description="The URL is `ctx.callback_url(name)` of a handler, which gives it to another system. The body, an object of 16 KiB at "
            "most or nothing, is the signal's payload. The same body again is the same signal.",
            body=models.SignalBody, body_required=False,
            problems=("callback-not-found", "callback-over", "too-many-signals", "store-unavailable"),
        )
    )  # fmt: skip
    def call_back(self, token: str) -> Reply:
        """Record a signal."""
        try:
            callback = self._secrets.read(token, time.time())
        except InvalidToken:
            raise Problem("callback-not-found") from None
        except ExpiredToken:
            raise Problem("callback-over", "The URL has expired.") from None
        context.current().task_id = callback.task_id
        payload = written(read_payload())
        # A sender that had no answer sends it again.
        key = hashlib.sha256(f"{token}\n{payload}".encode()).hexdigest()
        try:
            self._signaller.signal(callback.task_id, NewSignal(callback.signal, payload, BY, key))
        except (TaskTerminal, UnknownTask):
            raise Problem("callback-over", "The task has ended.") from None
        return json_reply({"signal": callback.signal}, 202)
