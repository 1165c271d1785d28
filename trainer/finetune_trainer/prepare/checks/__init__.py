"""What the prepare step checks before an accelerator is asked for, one subject a file."""
