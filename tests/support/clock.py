"""A clock that jumps: a Python process started with its environment sees another time of day, as after a bad NTP step.

Only the time of day is false; the monotonic clock, which no step changes, is the machine's own.
"""

from pathlib import Path

from support import processes

#: Python runs this before anything else; children of the process inherit it.
_SITE = """
import time
_real, _path = time.time, {path!r}
def _time():
    with open(_path) as file:
        return _real() + float(file.read())
time.time = _time
"""


class Clock:
    """The time of day of some processes.

    Args:
        folder: where its files may be.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._site = folder / "site"
        self._site.mkdir()
        (self._site / "sitecustomize.py").write_text(_SITE.format(path=str(self._file)))
        self.jump(0)

    def jump(self, seconds: float) -> None:
        """From now on it is so many seconds early, or late if below zero."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds}")
        fresh.replace(self._file)  # whole: it is read at every look at the clock

    def environ(self) -> dict[str, str]:
        """Variables for a process that goes by it."""
        return {"PYTHONPATH": str(self._site), processes.FRESH: "1"}
