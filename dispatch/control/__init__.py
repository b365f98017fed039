"""The operator's hand on tasks that have not ended: each verb records its decision first, and every step may be repeated."""
