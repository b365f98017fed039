"""A worker that holds connections of its own beside Celery's: ``celery -A support.bystander worker``.

Their file descriptors get the numbers that a killed child's pipes have left. What to do next is the name of a file
that a test makes in ``$BYSTANDER``; that name with ``.done`` is the answer.
"""

import os
import socket
import threading
from pathlib import Path

from celery.signals import worker_ready

import celery_app
from support.waiting import eventually

WORDS = b"not yours"

#: Numbers below those of the pool's pipes; once free, it is these that the next pipes get.
_low = [os.pipe() for _ in range(8)]


def vacate():
    """Free the low numbers."""
    for pair in _low:
        for number in pair:
            os.close(number)
    return ""


def settle():
    """Take every number that is free now, with words waiting to be read."""
    _pairs.extend(socket.socketpair() for _ in range(24))
    for _, writer in _pairs:
        writer.send(WORDS)
    return ""


def look():
    """How many connections have their words still."""
    return str(sum(reader.recv(64, socket.MSG_DONTWAIT | socket.MSG_PEEK) == WORDS for reader, _ in _pairs))


_pairs: list[tuple[socket.socket, socket.socket]] = []


def _serve(folder):
    for step in (vacate, settle, look):
        eventually((folder / step.__name__).exists, 120, step.__name__)
        try:
            result = step()
        except OSError as exc:
            result = repr(exc)
        (folder / f"{step.__name__}.part").write_text(result)
        (folder / f"{step.__name__}.part").rename(folder / f"{step.__name__}.done")


@worker_ready.connect(weak=False)
def _begin(**_):
    threading.Thread(target=_serve, args=[Path(os.environ["BYSTANDER"])], daemon=True).start()


def __getattr__(name):
    """``support.bystander.app``: the worker's app."""
    return getattr(celery_app, name)
