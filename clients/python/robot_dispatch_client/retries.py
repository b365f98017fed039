"""Whether a request is sent again, and when. Pure.

A request that had no response may have had its effect. So it is sent again only when a second effect is impossible:
`Repeat` is what the API promises of an operation.
"""

from __future__ import annotations

import dataclasses
import enum
import random
from collections.abc import Callable

from robot_dispatch_client import errors
from robot_dispatch_client.errors import ApiError, ConnectionFailed, DispatchError


class Repeat(enum.Enum):
    """What makes a repeat safe."""

    SAFE = "safe"  #: the operation changes nothing, or repeating it changes nothing more
    KEYED = "keyed"  #: its Idempotency-Key: all repeats are one submission
    UNSENT = "unsent"  #: nothing: it is sent again only if it had no effect


#: Problems after which nothing has happened, whatever the operation.
_WITHOUT_EFFECT = (errors.TooManyRequests, errors.GatewayBusy, errors.KeysUnavailable)

_TRANSIENT = (errors.TooManyRequests, errors.Unavailable)


@dataclasses.dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long, and how often, a call is tried.

    Args:
        total: seconds after which no further try begins; 0: one try.
        first: seconds of the first pause, at most; each pause doubles it.
        longest: seconds of a pause at most, unless the API asks for more (`Retry-After`).
    """

    total: float = 60.0
    first: float = 0.25
    longest: float = 10.0

    def pause(
        self,
        failure: DispatchError,
        repeat: Repeat,
        *,
        tries: int,
        elapsed: float,
        chance: Callable[[], float] = random.random,
    ) -> float | None:
        """Seconds until the next try.

        Args:
            failure: of the last try.
            repeat: the operation's.
            tries: so far.
            elapsed: seconds since the first one began.
            chance: from 0 to 1.

        Returns:
            The back-off with jitter, never less than `Retry-After`; None: it must not be sent again, or not in time.
        """
        if not may_repeat(failure, repeat):
            return None
        backoff: float = min(self.longest, self.first * 2 ** min(tries - 1, 30))
        asked = failure.retry_after if isinstance(failure, ApiError) else None
        # Clients that were refused together come back at different times, and none sooner than asked.
        pause = backoff * (0.5 + chance() / 2) if asked is None else asked + min(backoff, 1 + asked / 10) * chance()
        return pause if elapsed + pause < self.total else None


def may_repeat(failure: DispatchError, repeat: Repeat) -> bool:
    """Whether a request may be sent again after a failure.

    Args:
        failure: of the last try.
        repeat: the operation's.
    """
    if isinstance(failure, ConnectionFailed):
        return failure.unsent or repeat is not Repeat.UNSENT
    if repeat is Repeat.UNSENT:
        return isinstance(failure, _WITHOUT_EFFECT)
    if isinstance(failure, errors.IdempotencyKeyInProgress):
        return repeat is Repeat.KEYED
    return isinstance(failure, _TRANSIENT)
