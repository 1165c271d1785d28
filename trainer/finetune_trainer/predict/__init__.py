"""Answer rows with a job's output: read what it is, load it, and run its task's `predict` over a file."""
