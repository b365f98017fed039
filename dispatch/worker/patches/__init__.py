"""Workarounds for faults of Celery 5.7, one a module."""
