"""What training minimises. An objective owns the forward pass and gives sums of losses, never means (I1)."""
