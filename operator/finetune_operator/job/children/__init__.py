"""The children of a job as plain Kubernetes objects."""
