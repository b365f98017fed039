"""When a cron expression fires, in a time zone. Pure.

Five fields as in Debian's cron, or six with seconds first. An expression with a given minute and hour fires once on the days of both clock
changes: one for a time that is left out fires when the clock has gone forward, one for a time that comes twice fires the first time. One
with ``*`` in minute or hour, or with seconds, fires by the clock as it goes: not in the hour that is left out, in both of the hour that comes twice.
"""

from __future__ import annotations

import datetime as dt
import functools
import zoneinfo
from collections.abc import Iterator

from cronsim import CronSim, CronSimError

#: Characters of an expression: a list of every minute and every hour fits.
MAX_EXPRESSION = 400

#: A name that a system may have beside the IANA database's own: it means something else on each machine.
_NO_ZONES = frozenset({"localtime", "posixrules", "Factory"})


class BadCron(ValueError):
    """It is no cron expression, or one that never fires."""


class BadZone(ValueError):
    """It is no time zone of the IANA database."""


@functools.lru_cache(64)
def zone(name: str) -> zoneinfo.ZoneInfo:
    """A time zone.

    Raises:
        BadZone: see the class.
    """
    if name in _NO_ZONES or name not in _zones():
        raise BadZone("there is no such time zone in the IANA database; for example Europe/Berlin, or UTC")
    return zoneinfo.ZoneInfo(name)


@functools.cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def times_after(expression: str, zone_name: str, millis: int) -> Iterator[int]:
    """The times at which an expression fires, in order.

    Args:
        expression: see the module.
        zone_name: of the IANA database.
        millis: epoch milliseconds; only later times.

    Yields:
        Epoch milliseconds. It ends where the expression does not fire for 50 years.

    Raises:
        BadCron: it is no cron expression.
        BadZone: there is no such zone.
    """
    start = dt.datetime.fromtimestamp(millis // 1_000, tz=zone(zone_name))
    last = millis
    for moment in _iterate(expression, start):
        at = int(moment.timestamp()) * 1_000
        if at > last:  # in the hour that comes twice the first of the two may lie before the start
            last = at
            yield at


def next_time(expression: str, zone_name: str, millis: int) -> int | None:
    """The first time after another one; None where it does not fire for 50 years.

    Args:
        expression: see the module.
        zone_name: of the IANA database.
        millis: epoch milliseconds.

    Raises:
        BadCron: it is no cron expression.
        BadZone: there is no such zone.
    """
    return next(times_after(expression, zone_name, millis), None)


def _iterate(expression: str, start: dt.datetime) -> Iterator[dt.datetime]:
    if len(expression) > MAX_EXPRESSION or not expression.isascii():
        raise BadCron(f"a cron expression has at most {MAX_EXPRESSION} ASCII characters")
    try:
        yield from CronSim(expression, start)
    except (CronSimError, AssertionError, RecursionError) as exc:
        raise BadCron(str(exc) or "it is no cron expression") from exc
    except (ValueError, OverflowError):  # the year 10000
        return
