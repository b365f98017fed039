"""WHAT workers do: one file a family of task types; ``docs/how-to/add-a-task-type.md`` shows how to add one.

Nothing here knows Flask, Redis, RabbitMQ or Celery: a handler is a function of its payload and a
`dispatch.tasktypes.context.Context`.
"""
