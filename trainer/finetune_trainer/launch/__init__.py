"""The pod's entry: the launcher of this node's processes."""
