"""What a trainer reports while it runs and when it ends: snapshots, their history, the outcome, the log."""
