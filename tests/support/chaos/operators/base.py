"""What operators have in common."""

from __future__ import annotations

import random
import threading
from typing import Any, ClassVar

from support.chaos.caller import Caller, Notes
from support.chaos.orders import Book

#: Seconds for which an operator insists on ending what it has begun.
INSIST = 90.0


class Operator:
    """Uses a verb now and then.

    Args:
        caller: its own.
        book: where effects land.
        seed: of the run.
        notes: where it writes.
    """

    pause: ClassVar[tuple[float, float]]  #: seconds between two uses, least and most

    def __init__(self, caller: Caller, book: Book, seed: int, notes: Notes) -> None:
        self.http = caller
        self.book = book
        self.rng = random.Random(f"{seed}-{type(self).__name__}")
        self.notes = notes
        self.stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Work until stopped, then end what was begun."""
        self.stop = stop
        try:
            while not stop.wait(self.rng.uniform(*self.pause)):
                self.step()
        finally:
            self.end()
            self.http.close()

    def step(self) -> None:
        """Use a verb."""
        raise NotImplementedError

    def end(self) -> None:
        """End what was begun."""

    def items(self, path: str) -> list[dict[str, Any]]:
        """What a list shows; nothing when it cannot be read."""
        _, body = self.http.call("GET", path)
        return list(body.get("items", [])) if isinstance(body, dict) else []
