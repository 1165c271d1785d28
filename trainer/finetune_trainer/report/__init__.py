"""What a trainer says while it runs and when it ends: reports, their history, the last word, the log."""
