"""Sweepers in this process, with settings of their own."""

import contextlib
import threading

from dispatch.broker.publisher import Publisher
from dispatch.maintenance.sweeper import Sweeper
from dispatch.store.handovers import Handovers


@contextlib.contextmanager
def sweeping(desk, sweepers=1, **changes):
    """Sweepers that all look at a task at once, when they are told.

    Args:
        desk: the test's.
        sweepers: how many.
        changes: to their settings, e.g. a shorter grace.
    """
    impatient = desk.settings.model_copy(update=changes)
    publisher = Publisher(impatient.broker("replay"))
    each = [
        Sweeper(impatient, send=lambda c: publisher.publish(c.message, c.exchange, c.routing_key))
        for _ in range(sweepers)
    ]
    handovers = Handovers(impatient)

    def sweep(task_id):
        handovers.look_again(task_id, 0)
        threads = [threading.Thread(target=sweeper.sweep) for sweeper in each]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    try:
        yield sweep
    finally:
        handovers.close()
        publisher.close()
