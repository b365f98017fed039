"""The one way into the system: accept a task, publish it, mark it published. For the gateway, and for tasks that submit tasks."""
