"""Threads that run beside the workers."""
