"""What all benchmarks share: servers of their own, processes and their CPU, turns that alternate, statistics, results."""
