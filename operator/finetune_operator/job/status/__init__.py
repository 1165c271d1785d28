"""The job's status: what reports say merged into it, and what is derived from it."""
