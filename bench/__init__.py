"""Benchmarks; each module documents how to run it."""
