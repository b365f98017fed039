"""Results of benchmarks, made up."""

from collections.abc import Sequence
from typing import Any

from bench.harness.results import PartResult, ResultRow
from bench.parts import failures, gateway, growth, latency, system, worker


def result(part: str, rows: Sequence[ResultRow], **changed: Any) -> PartResult:
    """One part's, with a note."""
    given: dict[str, Any] = {
        "command": f"python -m bench {part}",
        "began": "2026-11-20T10:00:00+00:00",
        "seconds": 12.3,
        "load": (0.5, 1.5),
        "machine": {"processor": "two of some"},
        "rows": rows,
        "notes": ["a note"],
    }
    return PartResult(part=part, **(given | changed))


def of_every_part() -> list[PartResult]:
    """One of each part of `make bench`."""
    rate = {"requests/s": [100.0, 120.0, 110.0]}
    post = "POST, 16 connections, 2 processes"
    spans = {f"{what} p{share} ms": [5.0, 6.0] for what in ("start", "SUCCESS", "POST") for share in (50, 99)}
    return [
        result(
            gateway.NAME, [ResultRow(post, "ours", rate), ResultRow(post, gateway.PEER, {"requests/s": [200.0] * 3})]
        ),
        result(
            worker.NAME,
            [
                ResultRow(worker.CASE, variant, {"tasks/s": [speed], "worker CPU µs": [1e6 / speed]})
                for variant, speed in (("ours", 3_000.0), (worker.CELERY, 1_000.0), (worker.DRAMATIQ, 4_000.0))
            ],
        ),
        result(latency.NAME, [ResultRow("20 tasks a second", name, spans) for name in ("ours", latency.PEER)]),
        result(
            system.NAME,
            [
                ResultRow(system.HIGHEST, "ours", {"tasks/s": [550.0, 650.0, 700.0]}),
                *(
                    ResultRow(f"{rate}{system.RATE}", "ours", {"POST p99 ms": [p99]})
                    for rate, p99 in ((200, 9.0), (400, 80.0))
                ),
            ],
        ),
        result(
            growth.NAME,
            [
                ResultRow(growth.PUBLISH, growth.EMPTY, {"requests/s": [100.0]}),
                ResultRow(growth.PUBLISH, "100,000 waiting", {"requests/s": [80.0]}),
                ResultRow(growth.TASK_MEMORY, "ours", {"Redis B": [1_500.0]}),
            ],
        ),
        result(failures.NAME, [ResultRow("redrive of all dead letters", "ours", {"s": [3.0]})]),
    ]
