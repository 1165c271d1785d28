"""What the frozen part of a model gives for each row: computed once, kept in scratch, and read again."""
