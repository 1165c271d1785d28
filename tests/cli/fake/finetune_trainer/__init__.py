"""A stand-in for the trainer in tests of what goes wrong: it speaks the protocol and ends as it is told."""
