"""One rank's training: its worker, the loop, the end of the run, and what they work with."""
