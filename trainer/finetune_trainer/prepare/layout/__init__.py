"""How the rows are laid out for reading: the data manifest, and copies where they are needed."""
