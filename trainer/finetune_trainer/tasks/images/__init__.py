"""Images: opened and checked, varied, and shown."""
