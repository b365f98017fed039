"""Client of the robot vendor's HTTP API: token, order, poll, stop.

::

    POST /oauth/token                                      client credentials → access token
    POST /openapi/v1/robots/{sn}/tasks/temp/withoutSite    Idempotency-Key → the order's command
    GET  /openapi/v1/robots/{sn}/commands/{id}             state and percent
    POST /openapi/v1/robots/{sn}/commands/{id}/cancel

The vendor retains an Idempotency-Key while its command is active or has succeeded: the same key returns the same command.
A command that failed or was stopped releases its Idempotency-Key.

A robot that executes another order refuses (409 ``ROBOT_BUSY``): no attempt of the task is used up. A command that is active
may have the vendor's estimate of the seconds left; with a callback URL, its end is POSTed there, at least once.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Annotated, Any, Self, TypeVar

import pydantic
from pydantic import Field

from dispatch.config.groups import HandlerSettings
from dispatch.errors import PermanentError, RetryableError, Throttled
from tasks import upstream

#: Name of the vendor's API in messages.
PEER = "the robot API"

#: Seconds: timeout of each part of a response, and of the complete response.
READ_TIMEOUT = 10.0
RESPONSE_TIMEOUT = 20.0

#: Terminal states of a command.
SUCCEEDED = "SUCCEEDED"  #: the robot finished
FAILED = "FAILED"  #: the robot failed: stuck, battery, obstacle
STOPPED = frozenset({"ABORTED", "CANCELLED"})  #: stopped at the robot or through the API

#: Error code of a robot that executes another order.
BUSY = "ROBOT_BUSY"

_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._-]*"

#: What a command's name is.
COMMAND = rf"^robots/{_SEGMENT}/commands/{_SEGMENT}$"


class _Response(pydantic.BaseModel):
    """Base of response models: unknown fields are ignored."""

    model_config = pydantic.ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class _Grant(_Response):
    access_token: str = Field(pattern=r"^[\x21-\x7e]+$", repr=False)
    expires_in: float = Field(3_600, gt=0, allow_inf_nan=False)


class CommandError(_Response):
    """The reason of a failure."""

    code: str = "UNKNOWN"  #: machine-readable
    message: str = ""  #: human-readable


class Command(_Response):
    """An order that the vendor has accepted."""

    name: str = Field(pattern=COMMAND)  #: also its path
    state: str = Field(min_length=1)  #: WAITING, RUNNING, or terminal; unknown states are not terminal
    percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0  #: progress
    message: str = ""  #: human-readable progress
    error: CommandError | None = None  #: set when FAILED or stopped
    #: The vendor's estimate while the command is active; None without a usable one.
    remaining_seconds: float | None = Field(None, alias="remainingSeconds")

    @pydantic.field_validator("remaining_seconds", mode="before")
    @classmethod
    def _usable(cls, value: Any) -> float | None:
        # A hint for the next poll: a bad one is no reason to refuse the command's state.
        usable = isinstance(value, int | float) and 0 <= value < float("inf")
        return float(value) if usable else None

    @property
    def ended(self) -> bool:
        """Whether its state is terminal."""
        return self.state in {SUCCEEDED, FAILED, *STOPPED}


@dataclasses.dataclass(frozen=True, slots=True)
class _Token:
    value: str = dataclasses.field(repr=False)
    expires: float  #: `time.monotonic` seconds


#: Tokens of this process, by API and client id; its threads share them.
_tokens: dict[tuple[str, str], _Token] = {}

_A = TypeVar("_A", bound=_Response)


class Vendor:
    """A client of the vendor's API for one attempt; a context manager.

    Args:
        settings: URL of the API and client credentials.
        traceparent: W3C Trace Context, sent with each request.
    """

    def __init__(self, settings: HandlerSettings, traceparent: str) -> None:
        self._settings = settings
        self._base = settings.robot_api_url.rstrip("/")
        self._used: list[str] = []  # tokens of this attempt: another thread may have replaced them
        self._http = upstream.client(READ_TIMEOUT, headers={"traceparent": traceparent})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._http.close()

    def order(self, robot: str, body: Mapping[str, Any], key: str, callback_url: str | None = None) -> Command:
        """Send an order to a robot; the same Idempotency-Key returns the same command.

        Args:
            robot: serial number.
            body: the order.
            key: Idempotency-Key.
            callback_url: where the vendor POSTs the command when it has ended.

        Returns:
            The command; accepted, not completed.

        Raises:
            Throttled: ``robot-busy`` when the robot executes another order.
            TaskError: as in `tasks.upstream`; ``upstream-garbled`` when the response is no command.
        """
        path = f"robots/{robot}/tasks/temp/withoutSite"
        content = {**body, **({"callbackUrl": callback_url} if callback_url else {})}
        answer = self._call("POST", path, json=content, headers={"Idempotency-Key": key})
        if answer.status == 409 and _error(answer).code == BUSY:
            wait = upstream.retry_after(answer.headers.get("Retry-After"), now=time.time())
            msg = f"robot {robot} executes another order"
            raise Throttled(msg, type="robot-busy", retry_after=wait)
        return self._read(Command, answer)

    def command(self, name: str) -> Command:
        """Get a command.

        Args:
            name: as in `Command.name`.

        Returns:
            Its current state.

        Raises:
            RetryableError: ``order-lost`` when the vendor responds 404.
            TaskError: as in `order`.
        """
        answer = self._call("GET", name)
        if answer.status == 404:
            msg = f"{PEER} has no command {name}"
            raise RetryableError(msg, type="order-lost")
        return self._read(Command, answer)

    def stop(self, name: str) -> Command:
        """Stop a command.

        Args:
            name: as in `Command.name`.

        Returns:
            The command, which may have succeeded before the stop.

        Raises:
            TaskError: as in `order`.
        """
        return self._read(Command, self._call("POST", f"{name}/cancel"))

    def _call(self, method: str, path: str, **request: Any) -> upstream.Answer:
        url = f"{self._base}/openapi/v1/{path}"
        token = self._token()
        answer = self._authorized(method, url, token, **request)
        if answer.status != 401:
            return answer
        # Revoked, or the clocks differ: retry once with a new token, which another thread may have by now.
        if (known := _tokens.get(self._token_key)) and known.value == token:
            _tokens.pop(self._token_key, None)
        return self._authorized(method, url, self._token(), **request)

    def _authorized(self, method: str, url: str, token: str, **request: Any) -> upstream.Answer:
        headers = {**request.pop("headers", {}), "Authorization": f"Bearer {token}"}
        return self._exchange(method, url, headers=headers, **request)

    @property
    def _token_key(self) -> tuple[str, str]:
        return self._base, self._settings.robot_client_id

    def _token(self) -> str:
        token = _tokens.get(self._token_key)
        if token is None or token.expires <= time.monotonic():
            token = _tokens[self._token_key] = self._fetch_token()
        self._used.append(token.value)
        return token.value

    def _fetch_token(self) -> _Token:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._settings.robot_client_id,
            "client_secret": self._settings.robot_client_secret.get_secret_value(),
        }
        requested = time.monotonic()
        answer = self._exchange("POST", f"{self._base}/oauth/token", data=form)
        if answer.status in {400, 401}:
            msg = f"{PEER} rejected the client id or secret ({answer.status})"
            raise PermanentError(msg, type="upstream-unauthorized")
        grant = self._read(_Grant, answer)
        # 10 % early, so that it does not expire in transit.
        return _Token(grant.access_token, requested + 0.9 * grant.expires_in)

    def _exchange(self, method: str, url: str, **request: Any) -> upstream.Answer:
        return upstream.exchange(self._http, method, url, peer=PEER, within=RESPONSE_TIMEOUT, **request)

    def _read(self, model: type[_A], answer: upstream.Answer) -> _A:
        detail = self._error_detail(answer) if answer.status >= 400 else ""
        if error := upstream.failure(answer, peer=PEER, detail=detail):
            raise error
        try:
            return model.model_validate_json(answer.body)
        except pydantic.ValidationError:
            # Without the cause, which may quote a token.
            msg = f"{PEER} responded {answer.status} with an invalid {model.__name__.strip('_').lower()}"
            raise RetryableError(msg, type="upstream-garbled") from None

    def _error_detail(self, answer: upstream.Answer) -> str:
        """The vendor's error message, with secrets redacted."""
        error = _error(answer)
        text = f"{error.code} {error.message}".strip()
        secrets = [self._settings.robot_client_secret.get_secret_value(), *self._used]
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
        return text[:200]


class _ErrorBody(_Response):
    error: CommandError


def _error(answer: upstream.Answer) -> CommandError:
    try:
        return _ErrorBody.model_validate_json(answer.body).error
    except pydantic.ValidationError:
        return CommandError(code="")
