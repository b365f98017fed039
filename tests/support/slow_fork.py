"""A worker that takes a second over the first process by which its pool grows: ``celery -A support.slow_fork worker``.

It creates the file ``$SLOW_FORK``, so that a test can do something just then.
"""

import os
import time
from pathlib import Path

from billiard.process import BaseProcess
from celery.signals import worker_ready

import celery_app

_start = BaseProcess.start


def _start_slowly(self):
    BaseProcess.start = _start
    Path(os.environ["SLOW_FORK"]).touch()
    until = time.monotonic() + 1
    while time.monotonic() < until:  # a signal handler that ran in here must not end the wait
        time.sleep(0.05)
    _start(self)


@worker_ready.connect(weak=False)
def _begin(**_):
    BaseProcess.start = _start_slowly


def __getattr__(name):
    """``support.slow_fork.app``: the worker's app."""
    return getattr(celery_app, name)
