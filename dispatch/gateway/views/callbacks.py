"""``/v1/callbacks/{token}``: signals of systems that have no API key; their URL permits them to send one signal of one task."""

from __future__ import annotations

import hashlib
import time

from dispatch.control.refusals import TaskTerminal, UnknownTask
from dispatch.control.signalling import Signaller
from dispatch.gateway.admission.local_rate import LocalRate
from dispatch.gateway.contract import request_models, response_models
from dispatch.gateway.http import context
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.gateway.views.signals import read_payload, written
from dispatch.protocol.callbacks import Callback, CallbackSecrets, ExpiredToken, InvalidToken
from dispatch.store.signals import NewSignal

#: Who sends what comes by a callback, in hops.
BY = "callback"


class CallbackViews:
    """The operation of callbacks; the token in its path is all the authentication that it has.

    Args:
        secrets: verify tokens.
        signaller: records signals.
        limit: callbacks for a task, and wrong ones from an address, that this process takes a minute; 0 is no limit.
    """

    def __init__(self, secrets: CallbackSecrets, signaller: Signaller, limit: int) -> None:
        self._secrets = secrets
        self._signaller = signaller
        self._right, self._wrong = LocalRate(limit), LocalRate(limit)

    @operation(
        Operation(
            "POST", "/v1/callbacks/{token}", "callBack", "Callbacks", "Signal a task without an API key",
            (ResponseSpec(202, "Recorded; the wait of a task that waits for it is over.", response_models.CallbackModel),),
            description="The URL is `ctx.callback_url(name)` of a handler, which gives it to another system. The body, an object of 16 KiB at "
            "most or nothing, is the signal's payload. The same body again is the same signal. Beyond `DISPATCH_CALLBACK_LIMIT` a minute for "
            "one task, or of wrong tokens from one address, 429.",
            body=request_models.SignalBody, body_required=False,
            problems=("callback-not-found", "callback-over", "too-many-callbacks", "too-many-signals", "store-unavailable"),
        )
    )  # fmt: skip
    def call_back(self, token: str) -> Reply:
        """Record a signal."""
        callback = self._read(token)
        context.current().task_id = callback.task_id
        _limited(self._right.take(callback.task_id))  # before Redis, and before the body, is read
        payload = written(read_payload())
        # A sender that had no answer sends it again.
        key = hashlib.sha256(f"{token}\n{payload}".encode()).hexdigest()
        try:
            self._signaller.signal(callback.task_id, NewSignal(callback.signal, payload, BY, key))
        except (TaskTerminal, UnknownTask):
            raise Problem("callback-over", "The task has ended.") from None
        return json_reply({"signal": callback.signal}, 202)

    def _read(self, token: str) -> Callback:
        """What a token stands for. A wrong one counts for its address: behind one proxy, those who have a right one go on."""
        try:
            return self._secrets.read(token, time.time())
        except InvalidToken:
            _limited(self._wrong.take(str(context.current().environ.get("REMOTE_ADDR") or "")))
            raise Problem("callback-not-found") from None
        except ExpiredToken:
            raise Problem("callback-over", "The URL has expired.") from None


def _limited(wait: int | None) -> None:
    """Raises Problem: 429, where there is a wait."""
    if wait is not None:
        raise Problem("too-many-callbacks", retry_after=wait)
