"""One attempt: its Job and pods as seen, why it waits, why it ended, and its entry in the status."""
