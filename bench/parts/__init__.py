"""What `make bench` measures, one part a module; each runs alone: ``python -m bench PART``."""
