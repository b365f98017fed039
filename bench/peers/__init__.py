"""What is measured beside ours: the same task, payload, queue type and confirms, as their documents show it.

They run in an environment of their own (dependency group ``peers``), and read where the servers are from ``PEER_BROKER_URL`` and
``PEER_REDIS_URL``.
"""
