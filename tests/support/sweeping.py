"""Sweepers in this process, with settings of their own."""

import contextlib
import threading

from dispatch.broker.publisher import Publisher
from support.stores import Stores


@contextlib.contextmanager
def sweeping(bench, sweepers=1, **changes):
    """Sweepers that check a task all at once.

    Args:
        bench: the test's.
        sweepers: how many.
        changes: to their settings, e.g. a shorter grace.
    """
    impatient = bench.settings.model_copy(update=changes)
    publisher = Publisher(impatient.broker("replay"))
    each = [Stores(impatient) for _ in range(sweepers)]
    made = [stores.sweeper(publisher) for stores in each]

    def sweep(task_id):
        each[0].reminders.set(task_id, 0)
        threads = [threading.Thread(target=sweeper.sweep) for sweeper in made]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    try:
        yield sweep
    finally:
        for stores in each:
            stores.close()
        publisher.close()
