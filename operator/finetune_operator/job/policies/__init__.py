"""What may happen to a job, one policy a file: `enforce(draft)` does its part of the plan.

It returns True where nothing that stands after it in the list has anything to say; `job.decide` has the list.
"""
