"""A fake API server and a fake node, in one process: exact enough for the operator, and made to misbehave on
request.
"""
