"""The task types that workers run, one module a family; ``docs/how-to/add-a-task-type.md`` shows how to add one.

Nothing here imports Flask, Redis, RabbitMQ or Celery: a handler is a function of its payload and a
`dispatch.tasktypes.context.Context`.
"""
