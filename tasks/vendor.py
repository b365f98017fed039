"""The robot vendor's HTTP API: token, order, look, stop.

::

    POST /oauth/token                                      client credentials → access token
    POST /openapi/v1/robots/{sn}/tasks/temp/withoutSite    Idempotency-Key → the order's command
    GET  /openapi/v1/robots/{sn}/commands/{id}             state and percent
    POST /openapi/v1/robots/{sn}/commands/{id}/cancel

The vendor keeps an Idempotency-Key for as long as its order lives or has succeeded: the same key yields
the same command. A command that failed, or that somebody stopped, releases its key.
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
from dispatch.errors import PermanentError, RetryableError
from tasks import upstream

#: How messages call the vendor's API.
PEER = "the robot API"

#: Seconds to wait for each part of an answer, and for a whole one.
READ_TIMEOUT = 10.0
ANSWER_TIMEOUT = 20.0

#: States in which a command has come to its end.
SUCCEEDED = "SUCCEEDED"  #: the robot finished
FAILED = "FAILED"  #: the robot gave up: stuck, battery, obstacle
STOPPED = frozenset({"ABORTED", "CANCELLED"})  #: somebody stopped it, at the robot or through the API

_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._-]*"


class _Answer(pydantic.BaseModel):
    """Base of answers: fields we don't know are the vendor's business."""

    model_config = pydantic.ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class _Grant(_Answer):
    access_token: str = Field(pattern=r"^[\x21-\x7e]+$", repr=False)
    expires_in: float = Field(3_600, gt=0, allow_inf_nan=False)


class Trouble(_Answer):
    """Why a command failed."""

    code: str = "UNKNOWN"  #: machine-readable
    message: str = ""  #: for people


class Command(_Answer):
    """An order as the vendor sees it."""

    name: str = Field(pattern=rf"^robots/{_SEGMENT}/commands/{_SEGMENT}$")  #: also its path
    state: str = Field(min_length=1)  #: WAITING, RUNNING, or an end state; others mean "not at its end"
    percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0  #: done so far
    message: str = ""  #: a word about it
    error: Trouble | None = None  #: set when FAILED or stopped


@dataclasses.dataclass(frozen=True, slots=True)
class _Token:
    value: str = dataclasses.field(repr=False)
    expires: float  #: `time.monotonic`


#: The tokens of this process, by API and client: prefork children fetch their own.
_tokens: dict[tuple[str, str], _Token] = {}

_A = TypeVar("_A", bound=_Answer)


class Vendor:
    """The vendor's API during one attempt; a context manager.

    Args:
        settings: where the API is and who we are.
        traceparent: W3C Trace Context, sent with each call.
    """

    def __init__(self, settings: HandlerSettings, traceparent: str) -> None:
        self._settings = settings
        self._base = settings.robot_api_url.rstrip("/")
        self._http = upstream.client(READ_TIMEOUT, headers={"traceparent": traceparent})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._http.close()

    def order(self, robot: str, body: Mapping[str, Any], key: str) -> Command:
        """Give a robot an order; the same key again yields the same command.

        Args:
            robot: serial number.
            body: what to do.
            key: idempotency key.

        Returns:
            The command, which has only been accepted.

        Raises:
            TaskError: as in `tasks.upstream`; ``upstream-garbled`` when the answer is no command.
        """
        path = f"robots/{robot}/tasks/temp/withoutSite"
        return self._read(Command, self._call("POST", path, json=dict(body), headers={"Idempotency-Key": key}))

    def command(self, name: str) -> Command:
        """Look at a command.

        Args:
            name: as in `Command.name`.

        Returns:
            How far it is.

        Raises:
            RetryableError: ``order-lost`` when the vendor does not know it.
            TaskError: as in `order`.
        """
        answer = self._call("GET", name)
        if answer.status == 404:
            msg = f"{PEER} does not know {name}"
            raise RetryableError(msg, type="order-lost")
        return self._read(Command, answer)

    def stop(self, name: str) -> Command:
        """Stop a command.

        Args:
            name: as in `Command.name`.

        Returns:
            The command, perhaps finished before it could be stopped.

        Raises:
            TaskError: as in `order`.
        """
        return self._read(Command, self._call("POST", f"{name}/cancel"))

    def _call(self, method: str, path: str, **request: Any) -> upstream.Answer:
        url = f"{self._base}/openapi/v1/{path}"
        answer = self._authorized(method, url, self._token(), **request)
        if answer.status != 401:
            return answer
        # Revoked, or their clock differs: one fresh token, then their word counts.
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
        return token.value

    def _fetch_token(self) -> _Token:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._settings.robot_client_id,
            "client_secret": self._settings.robot_client_secret.get_secret_value(),
        }
        asked = time.monotonic()
        answer = self._exchange("POST", f"{self._base}/oauth/token", data=form)
        if answer.status in {400, 401}:
            msg = f"{PEER} refused our client id or secret ({answer.status})"
            raise PermanentError(msg, type="upstream-unauthorized")
        grant = self._read(_Grant, answer)
        # A tenth early, so that it does not expire on its way.
        return _Token(grant.access_token, asked + 0.9 * grant.expires_in)

    def _exchange(self, method: str, url: str, **request: Any) -> upstream.Answer:
        return upstream.exchange(self._http, method, url, peer=PEER, within=ANSWER_TIMEOUT, **request)

    def _read(self, model: type[_A], answer: upstream.Answer) -> _A:
        detail = self._complaint(answer) if answer.status >= 400 else ""
        if error := upstream.failure(answer, peer=PEER, detail=detail):
            raise error
        try:
            return model.model_validate_json(answer.body)
        except pydantic.ValidationError:
            # The cause is cut off: it may quote a token.
            msg = f"{PEER} answered {answer.status} with something that is no {model.__name__.strip('_').lower()}"
            raise RetryableError(msg, type="upstream-garbled") from None

    def _complaint(self, answer: upstream.Answer) -> str:
        """The vendor's own words about an error, without our secrets."""
        try:
            trouble = _Complaint.model_validate_json(answer.body).error
        except pydantic.ValidationError:
            return ""
        text = f"{trouble.code} {trouble.message}".strip()
        secrets = [self._settings.robot_client_secret.get_secret_value()]
        if token := _tokens.get(self._token_key):
            secrets.append(token.value)
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
        return text[:200]


class _Complaint(_Answer):
    error: Trouble
