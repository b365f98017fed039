"""Command line: ``python -m support.chaos`` in ``tests/``; see docs/how-to/run-the-chaos-harness.md."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path

from support.chaos import report
from support.chaos.checker import check
from support.chaos.facts import Facts
from support.chaos.run import Plan, run


def main() -> int:
    """Run once, or judge the facts of an earlier run again; 0 when every promise was kept."""
    args = _parser().parse_args()
    if args.facts:
        facts = Facts.load(args.facts)
        violations = check(facts)
        _print(report.text(facts, violations, f"make chaos SEED={facts.seed} DURATION={facts.duration:g}"))
        return bool(violations)
    for name in [name for name in os.environ if name.startswith("DISPATCH_")]:
        del os.environ[name]  # a developer's own must not leak into the run
    seed = secrets.randbelow(100_000) if args.seed is None else args.seed
    plan = Plan(
        seed, args.duration, args.clients, args.workers, args.rate, calm=args.calm, pool=args.pool, idle=args.idle
    )
    _print(plan.command)
    directory = args.out / str(seed)
    verdict = run(plan, directory, _print)
    _print(f"\n{verdict.text}\n\nreport, facts and ledger: {directory}")
    return bool(verdict.violations)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m support.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of schedule and orders; a random one by default")
    parser.add_argument("--duration", type=float, default=120, help="seconds of faults and orders")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=20, help="orders a second")
    parser.add_argument("--calm", action="store_true", help="no faults: for memory slopes")
    parser.add_argument("--idle", action="store_true", help="no operators: tasks and faults alone")
    parser.add_argument("--pool", choices=["prefork", "threads"], default="prefork", help="of the workers")
    parser.add_argument("--out", type=Path, default=Path(".run/chaos"), help="directory of the results")
    parser.add_argument("--facts", type=Path, help="judge a facts.json again and run nothing")
    return parser


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
