"""How a task travels: one module a step, from the HTTP request to the dead-letter queue."""

__version__ = "1.0.0"
