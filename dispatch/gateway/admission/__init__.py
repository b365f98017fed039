"""Whether the gateway takes a request: queue depth, quotas, readiness."""
