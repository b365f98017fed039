"""Celery's interface of a pool over `dispatch.worker.threads.places`."""

from __future__ import annotations

import os
from typing import Any

from celery.concurrency.base import BasePool
from celery.worker import state

from dispatch.telemetry import logger
from dispatch.worker.threads.leaving import end_with_main_thread
from dispatch.worker.threads.places import ThreadPlaces, most_runaways

log = logger(__name__)


class ThreadPool(BasePool):
    """The pool behind ``--pool=threads``."""

    kills = False  #: whether it ends a run, see `dispatch.worker.request.DeliveryRequest.cancel`
    uses_semaphore = False
    places: ThreadPlaces  #: where handlers run; a `dispatch.worker.starter.Places`

    def on_start(self) -> None:
        """Start the threads."""
        worker, options = self.app.dispatch_worker, self.options
        self.places = ThreadPlaces(
            self.limit,
            worker.router.loop,
            soft=options.get("soft_timeout"),
            hard=options.get("timeout"),
            too_many=worker.shutdown.leave,
        )
        log.info(
            "tasks run in threads, which can't be ended: a run beyond its time limit is refused, and goes on",
            threads=self.limit,
            leaves_beyond=most_runaways(self.limit),
        )

    def register_with_event_loop(self, loop: Any) -> None:
        """Called after each (re)connect."""
        self.places.register(loop)

    def on_stop(self) -> None:
        """Wait for what runs, within its limits; after a cold shutdown, which has waited, give it up instead.

        Called again by a signal that escalates the shutdown, in the middle of itself.
        """
        while self.places.busy and state.should_terminate is None:
            self.places.go_on()
        self.on_terminate()

    def on_terminate(self) -> None:
        """Give up what runs; it ends with the process."""
        self.places.give_up()
        end_with_main_thread(self._status)

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Refused: no thread can be ended.

        Raises:
            NotImplementedError: always.
        """
        del pid, signal
        raise NotImplementedError("a thread can't be terminated; its time limit fences it")

    def _get_info(self) -> dict[str, Any]:
        """For `celery inspect stats` and Flower."""
        return {
            **super()._get_info(),
            "processes": [os.getpid()],
            "threads": self.limit,
            "busy": self.places.busy,
            "runaways": self.places.runaways,
            "timeouts": (self.options.get("soft_timeout") or 0, self.options.get("timeout") or 0),
        }

    def _status(self) -> int:
        consumer = self.app.dispatch_worker.consumer
        return int((consumer and consumer.controller.exitcode) or 0)
