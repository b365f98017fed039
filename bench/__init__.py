"""Measurements of our own parts; each file says how to run it."""
