"""From what is known of a resource to the writes that bring it a step on. Start at `loop`."""
