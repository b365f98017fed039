"""Dead letters: the operator's verbs, the walk through the DLQ, and the threads that keep it true."""
