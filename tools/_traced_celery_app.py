"""The Celery app of a checkout, its calls recorded: ``celery -A tools._traced_celery_app worker``."""

from __future__ import annotations

import importlib

from tools import call_recorder

call_recorder.install()

app = importlib.import_module("celery_app").app
