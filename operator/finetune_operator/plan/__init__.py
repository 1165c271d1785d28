"""The planner: `plan(observed)` says what to write next, from what is seen and the time alone.

Pure and level-triggered: it may run at any time, any number of times, after a crash between any two writes, and leads to
the same state (invariant I6). One policy a file; `decide.plan` puts them together.
"""
