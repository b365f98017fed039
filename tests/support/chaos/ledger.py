"""The ledger: an HTTP service of its own where effects land, with an SQLite file.

``POST /effects`` applies an effect, once for each Idempotency-Key, and counts every delivery beside it, as a sink
that does not honour the key would feel it. The body chooses how it goes:

====================  =======================================================
``label``             whose effect it is
``sleep``             seconds before anything else
``permanent``         answer 400
``fail``, ``status``  answer ``status`` to the first ``fail`` deliveries of the key
``lost``              apply, but cut the connection, for the next ``lost`` ones
====================  =======================================================
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_TABLES = """
CREATE TABLE delivery (id INTEGER PRIMARY KEY, key TEXT, label TEXT, began REAL, ended REAL, outcome TEXT);
CREATE INDEX by_key ON delivery (key);
CREATE TABLE effect (key TEXT PRIMARY KEY, label TEXT, at REAL);
"""


class Book:
    """The file. Thread-safe.

    Args:
        path: of a file that does not exist yet.
    """

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()
        self._file = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._file.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;" + _TABLES)

    def begin(self, key: str, label: str) -> tuple[int, int]:
        """Note a delivery; its number, and how many of its key came before."""
        with self._lock:
            before = self._file.execute("SELECT COUNT(*) FROM delivery WHERE key = ?", (key,)).fetchone()[0]
            row = self._file.execute(
                "INSERT INTO delivery (key, label, began, outcome) VALUES (?, ?, ?, 'begun')",
                (key, label, time.time()),
            )
            return int(row.lastrowid or 0), before

    def apply(self, key: str, label: str) -> bool:
        """Apply an effect; False when its key has had it."""
        with self._lock:
            row = self._file.execute("INSERT OR IGNORE INTO effect VALUES (?, ?, ?)", (key, label, time.time()))
            return row.rowcount == 1

    def end(self, number: int, outcome: str) -> None:
        """Note how a delivery went."""
        with self._lock:
            self._file.execute(
                "UPDATE delivery SET ended = ?, outcome = ? WHERE id = ?", (time.time(), outcome, number)
            )


def read(path: Path) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Every delivery, and the applications by key."""
    file = sqlite3.connect(path)
    try:
        columns = ("key", "label", "began", "ended", "outcome")
        rows = file.execute(f"SELECT {', '.join(columns)} FROM delivery ORDER BY id").fetchall()
        effects = dict(file.execute("SELECT key, COUNT(*) FROM effect GROUP BY key").fetchall())
        return [dict(zip(columns, row, strict=True)) for row in rows], effects
    finally:
        file.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    book: Book

    def do_POST(self) -> None:
        wish = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Idempotency-Key"]
        number, before = self.book.begin(key, wish["label"])
        time.sleep(wish.get("sleep", 0))
        fail = wish.get("fail", 0)
        if wish.get("permanent"):
            self._end(number, "refused", 400)
        elif before < fail:
            self._end(number, "failed", wish.get("status", 500))
        else:
            outcome = "applied" if self.book.apply(key, wish["label"]) else "repeat"
            self._end(number, outcome, 200 if before >= fail + wish.get("lost", 0) else None)

    def _end(self, number: int, outcome: str, status: int | None) -> None:
        """Note it, then answer; without a status the connection is cut instead."""
        self.book.end(number, outcome)
        if status is None:
            self.close_connection = True
            return
        body = json.dumps({"outcome": outcome}).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # the caller was killed

    def log_message(self, *_: Any) -> None:
        """Log nothing: the file has it all."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_: Any) -> None:
        """A caller that was killed is no error of ours."""


def main() -> None:
    """Serve until standard input ends, so that it never outlives the harness; the port goes to standard output."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", required=True)
    _Handler.book = Book(parser.parse_args().file)
    server = _Server(("127.0.0.1", 0), _Handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    os._exit(0)  # deliveries that sleep need not end first


if __name__ == "__main__":
    main()
