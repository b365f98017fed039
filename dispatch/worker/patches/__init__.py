"""Faults of Celery 5.7 that this worker mends; each module names one."""
