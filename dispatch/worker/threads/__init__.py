"""A pool of threads in the worker's main process, for handlers that wait for others most of their time."""
