"""What a model can learn to do: one file and one value a task (`base.Task`), looked up by name in `registry`.

The prepare step checks every row with the functions that the loop encodes with, so that what it lets pass can be
learned. Nothing outside asks which task it is.
"""
