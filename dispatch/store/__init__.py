"""Redis: the record of each task, its transitions, and the indexes over them."""
