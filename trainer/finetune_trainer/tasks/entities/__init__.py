"""Words and the entities among them: tags of every scheme, rows checked and read, words found again as tokens."""
