"""What rows seem to be for: one kind of rows a file, each with its reasons."""
