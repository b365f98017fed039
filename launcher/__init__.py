"""Starts, watches and stops the whole system on one machine, with private servers: ``python -m launcher up``."""
