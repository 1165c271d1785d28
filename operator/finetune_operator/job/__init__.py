"""The planner of a FineTuneJob: pure functions from what is observed to what is written (invariant I6).

Start at `decide`.
"""
