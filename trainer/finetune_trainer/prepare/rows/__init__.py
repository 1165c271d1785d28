"""The evidence: every row of every source, read once."""
