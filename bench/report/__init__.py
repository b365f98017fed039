"""From the parts' results to tables, plots and verdicts: pure, but for reading and writing the files."""
