"""Schedules: the operator's verbs, and the task by which a schedule waits for its next due time."""
