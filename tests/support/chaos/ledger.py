"""The ledger: an HTTP service of its own where effects land, with an SQLite file; it is also who calls back, and who gets webhooks.

``POST /effects`` applies an effect, once for each Idempotency-Key, and counts every delivery beside it, as a sink
that does not honour the key would feel it. The body chooses how it goes:

====================  =======================================================
``label``             whose effect it is
``sleep``             seconds before anything else
``permanent``         answer 400
``fail``, ``status``  answer ``status`` to the first ``fail`` deliveries of the key
``lost``              apply, but cut the connection, for the next ``lost`` ones
``note``              kept with the delivery: what the handler saw
``callback``          once the effect is applied, POST ``{"id": id}`` to ``url`` ``after`` so many seconds, until it is taken
====================  =======================================================

``POST /webhooks`` keeps what is delivered there. Of every third event it refuses the first delivery.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sqlite3
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_TABLES = """
CREATE TABLE delivery (id INTEGER PRIMARY KEY, key TEXT, label TEXT, began REAL, ended REAL, outcome TEXT, note TEXT);
CREATE INDEX by_key ON delivery (key);
CREATE TABLE effect (key TEXT PRIMARY KEY, label TEXT, at REAL);
CREATE TABLE webhook (event TEXT, task TEXT, cycle INTEGER, type TEXT, at REAL, status INTEGER);
CREATE TABLE callback (key TEXT, signal TEXT, at REAL, status INTEGER);
"""

#: Seconds: between two tries of a callback, and for all of them.
CALL_PAUSE, CALL_FOR = 0.5, 40.0


class Book:
    """The file. Thread-safe.

    Args:
        path: of a file that does not exist yet.
    """

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()
        self._file = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._file.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;" + _TABLES)

    def begin(self, key: str, label: str, note: str) -> tuple[int, int]:
        """Note a delivery; its number, and how many of its key came before."""
        with self._lock:
            before = self._file.execute("SELECT COUNT(*) FROM delivery WHERE key = ?", (key,)).fetchone()[0]
            row = self._file.execute(
                "INSERT INTO delivery (key, label, began, outcome, note) VALUES (?, ?, ?, 'begun', ?)",
                (key, label, time.time(), note),
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

    def webhook(self, event: str, body: dict[str, Any]) -> int:
        """Keep a delivery of a webhook; the status to answer."""
        task = body["data"]
        with self._lock:
            count = self._file.execute("SELECT COUNT(*) FROM webhook WHERE event = ?", (event,)).fetchone()[0]
            status = 500 if not count and zlib.crc32(event.encode()) % 3 == 0 else 204
            row = (event, task["taskId"], task["cycle"], body["type"], time.time(), status)
            self._file.execute("INSERT INTO webhook VALUES (?, ?, ?, ?, ?, ?)", row)
            return status

    def called(self, key: str, signal: str, status: int) -> None:
        """Note the end of a callback; 0: it was never answered."""
        with self._lock:
            self._file.execute("INSERT INTO callback VALUES (?, ?, ?, ?)", (key, signal, time.time(), status))


@dataclasses.dataclass(frozen=True)
class Pages:
    """What the file holds."""

    deliveries: list[dict[str, Any]]
    effects: dict[str, int]  #: applications by key
    webhooks: list[dict[str, Any]]
    callbacks: list[dict[str, Any]]


def read(path: Path) -> Pages:
    """Everything."""
    file = sqlite3.connect(path)
    try:
        deliveries = _rows(file, "delivery", "key", "label", "began", "ended", "outcome", "note")
        effects = dict(file.execute("SELECT key, COUNT(*) FROM effect GROUP BY key").fetchall())
        webhooks = _rows(file, "webhook", "event", "task", "cycle", "type", "at", "status")
        callbacks = _rows(file, "callback", "key", "signal", "at", "status")
    finally:
        file.close()
    return Pages([{**row, "note": json.loads(row["note"])} for row in deliveries], effects, webhooks, callbacks)


def _rows(file: sqlite3.Connection, table: str, *columns: str) -> list[dict[str, Any]]:
    found = file.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY rowid").fetchall()
    return [dict(zip(columns, row, strict=True)) for row in found]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    book: Book

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/webhooks":
            self._answer(self.book.webhook(self.headers["webhook-id"], body), {})
        else:
            self._effect(body)

    def _effect(self, wish: dict[str, Any]) -> None:
        key = self.headers["Idempotency-Key"]
        number, before = self.book.begin(key, wish["label"], json.dumps(wish.get("note") or {}))
        time.sleep(wish.get("sleep", 0))
        fail = wish.get("fail", 0)
        if wish.get("permanent"):
            self._end(number, "refused", 400)
        elif before < fail:
            self._end(number, "failed", wish.get("status", 500))
        else:
            outcome = "applied" if self.book.apply(key, wish["label"]) else "repeat"
            if outcome == "applied" and wish.get("callback"):
                threading.Thread(target=_call_back, args=(self.book, key), kwargs=wish["callback"], daemon=True).start()
            self._end(number, outcome, 200 if before >= fail + wish.get("lost", 0) else None)

    def _end(self, number: int, outcome: str, status: int | None) -> None:
        """Note it, then answer; without a status the connection is cut instead."""
        self.book.end(number, outcome)
        if status is None:
            self.close_connection = True
            return
        self._answer(status, {"outcome": outcome})

    def _answer(self, status: int, answer: dict[str, Any]) -> None:
        body = b"" if status == 204 else json.dumps(answer).encode()
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


def _call_back(book: Book, key: str, *, url: str, after: float, id: str) -> None:
    """Call as a vendor does: the same body, until it is taken or refused for good."""
    time.sleep(after)
    until = time.monotonic() + CALL_FOR
    status = 0
    while time.monotonic() < until:
        request = urllib.request.Request(url, json.dumps({"id": id}).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                status = answer.status
        except urllib.error.HTTPError as exc:
            status = exc.code
        except OSError:
            status = 0
        if status in {202, 404, 409, 410, 422}:
            break
        time.sleep(CALL_PAUSE)
    book.called(key, id, status)


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
