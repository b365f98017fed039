"""Starts, supervises and stops the system on one machine, with private servers: ``python -m launcher up``."""
