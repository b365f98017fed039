"""The end of a process in which handlers may still run.

Python waits at its end for every thread that is no daemon, so for those of a handler's own; and a daemon's thread may hold the lock
of standard error while the interpreter takes itself apart, which aborts the process. Nothing that such a thread still does counts: its
fence is gone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


def end_with_main_thread(status: Callable[[], int]) -> None:
    """End the process as soon as its main thread has, whatever else runs.

    Args:
        status: the exit status, asked at the end.
    """

    def watch() -> None:
        threading.main_thread().join()
        os._exit(status())

    threading.Thread(target=watch, name="end-watch", daemon=True).start()
