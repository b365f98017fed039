"""Run our click commands as `celery -A celery_app` does."""

import types

from click.testing import CliRunner, Result

import tasks
import topology
from dispatch import tasktypes


def invoke(command, settings, *words) -> Result:
    """Run a command with a test's settings.

    Args:
        command: a click command.
        settings: the test's.
        words: of the command line.
    """
    app = types.SimpleNamespace(
        dispatch_settings=settings,
        dispatch_types=dict(tasktypes.load(tasks)),
        dispatch_map=topology.broker_map(settings),
    )
    return CliRunner().invoke(command, words, obj=types.SimpleNamespace(app=app))
