"""The data directory of the private servers, by the delay queues that RabbitMQ has declared in it.

The TTL of a delay queue cannot change after its declaration, so a broker with one ladder rejects another that gives the same
name another wait; one that only adds and drops names goes on with the same data. RabbitMQ cannot read the data of another
major release, or not downgrade. RabbitMQ and Redis share the directory: a record without its message would be lost.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from dispatch.protocol.names import HOLD_QUEUE, LEASE_QUEUE, rung_queue
from dispatch.protocol.retry import Ladder
from launcher import files, layout

_HOW = "docs/how-to/migrate-a-queue.md"

#: Seconds that the hold queue keeps a copy where the settings name no others: directories of before there was one go on.
HOLD_TTL = 600.0

#: In a data directory: the delay queues that were ever declared there.
_NOTE = "delay-queues.json"


@dataclasses.dataclass(frozen=True)
class DelayQueues:
    """What servers must be able to declare."""

    identity: str  #: of the directory
    release: str  #: of RabbitMQ
    seconds: Mapping[str, float]  #: by queue

    @classmethod
    def of(cls, ladder: Ladder, lease_park: float, release: str, hold_ttl: float = HOLD_TTL) -> DelayQueues:
        """Those of settings.

        Args:
            ladder: of the settings.
            lease_park: seconds that the lease queue delays.
            release: of RabbitMQ; empty where none is installed.
            hold_ttl: seconds that the hold queue keeps a copy.
        """
        parts = (ladder, lease_park, release or None, *([] if hold_ttl == HOLD_TTL else [hold_ttl]))
        identity = hashlib.sha256(repr(parts).encode()).hexdigest()[:8]
        waits = {rung_queue(rung.name): rung.seconds for rung in ladder.rungs}
        return cls(identity, release, {**waits, LEASE_QUEUE: lease_park, HOLD_QUEUE: hold_ttl})


def choose(parent: Path, wanted: DelayQueues) -> tuple[Path, list[str]]:
    """The directory in which the servers can declare what is wanted, the latest used first; created if there is none.

    Args:
        parent: of all data directories.
        wanted: the delay queues.

    Returns:
        The directory, and notes for the user.
    """
    known = sorted(parent.glob(f"*/{_NOTE}"), key=lambda path: path.stat().st_mtime, reverse=True)
    noted = [note for path in known if (note := _read(path)) is not None]
    there = next((note for note in noted if not list(_conflicts(note, wanted))), None)
    data = parent / (there or wanted).identity
    notes = [] if data.exists() else _elsewhere(parent, noted, wanted, data)
    before = there.seconds if there else {}
    if dropped := sorted(set(before) - set(wanted.seconds)):
        notes.append(f"no longer in the ladder: {', '.join(dropped)}; delete them when they are empty: {_HOW}")
    data.mkdir(parents=True, exist_ok=True)
    content = {"release": wanted.release, "seconds": {**before, **wanted.seconds}}
    files.write(data / _NOTE, json.dumps(content))
    return data, notes


def _read(path: Path) -> DelayQueues | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        note = json.loads(path.read_text())
        return DelayQueues(path.parent.name, str(note["release"]), dict(note["seconds"]))
    return None


def _conflicts(there: DelayQueues, wanted: DelayQueues) -> Iterator[str]:
    """Why data can't be used, for the user."""
    if there.release != wanted.release:
        yield f"they are of {there.release}, and this is {wanted.release}"
    for queue, seconds in wanted.seconds.items():
        if there.seconds.get(queue, seconds) != seconds:
            yield f"{queue} waits {there.seconds[queue]:g} s there, and {seconds:g} s in these settings"


def _elsewhere(parent: Path, noted: list[DelayQueues], wanted: DelayQueues, data: Path) -> list[str]:
    """That there are data which these settings can't use: tasks and dead letters would seem to be gone."""
    if not noted:
        return [f"the servers use a new data directory, {data}"] if parent.exists() else []
    return [
        f"new ladder or RabbitMQ release: its servers use a new data directory, {data}",
        f"tasks and dead letters of before stay in {parent / noted[0].identity}: {'; '.join(_conflicts(noted[0], wanted))}",
        f"to go on with them: {layout.command('down')}, and {layout.command('up')} with another name for another wait: {_HOW}",
    ]
