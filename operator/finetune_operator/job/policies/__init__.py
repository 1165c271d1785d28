"""What may happen to a job, one policy a file: each adds to the draft, and `job.decide` says which comes before
which."""
