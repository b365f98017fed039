"""``make demo`` from outside."""

import subprocess
import sys

import pytest

from support import stack as stacks


@pytest.mark.timeout(180)
def test_the_demo_ends_well_and_shows_every_step():
    stack = stacks.make()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "examples.demo"],
            cwd=stacks.ROOT,
            env=stack.environ,
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )

        assert done.returncode == 0, done.stdout + done.stderr
        for part in (
            "compressed ladder",
            "202 in",
            "RETRY_WAIT",
            "SUCCEEDED",
            "DEAD_LETTERED",
            "robot.task.dlq",
            "make down",
        ):
            assert part in done.stdout
    finally:
        stack.destroy()
