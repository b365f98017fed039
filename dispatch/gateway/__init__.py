"""HTTP in, 202 out: the only package that knows Flask."""
