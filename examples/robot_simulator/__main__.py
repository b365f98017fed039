"""Command line: ``python -m examples.robot_simulator --host 127.0.0.1 --port 8090``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence

from examples.robot_simulator.app import create_app
from examples.robot_simulator.server import listen, run
from examples.robot_simulator.world import Config


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT.

    Args:
        argv: the command line without the program; the process's own by default.

    Returns:
        The exit status.
    """
    args = _parser().parse_args(argv)
    config = Config(
        args.client_id, args.client_secret, args.token_seconds, args.work_seconds, args.one_at_a_time, args.estimates
    )
    server = listen(create_app(config), args.host, args.port)
    for number in (signal.SIGTERM, signal.SIGINT):
        # shutdown() waits for the loop, which runs in this thread.
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown, daemon=True).start())
    sys.stdout.write(f"robot simulator on http://{args.host}:{server.server_port}\n")
    sys.stdout.flush()
    run(server)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.robot_simulator", description="A cleaning-robot vendor's API with failure injection."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to bind (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8_090, help="0 chooses a free one (default: %(default)s)")
    parser.add_argument("--work-seconds", type=_positive, default=5.0, help="duration of an order (default: 5)")
    parser.add_argument("--token-seconds", type=_positive, default=3_600.0, help="lifetime of a token (default: 3600)")
    parser.add_argument("--one-at-a-time", action="store_true", help="a robot at work refuses other orders (409)")
    parser.add_argument(
        "--estimates",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether an active command has remainingSeconds (default: it has)",
    )
    parser.add_argument("--client-id", default="demo", help="(default: %(default)s)")
    parser.add_argument(
        "--client-secret",
        default=os.environ.get("ROBOT_SIMULATOR_SECRET", "demo"),
        help="default: ROBOT_SIMULATOR_SECRET, else demo",
    )
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
