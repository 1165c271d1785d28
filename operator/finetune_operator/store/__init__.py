"""What the operator knows of the cluster: small projections in memory, never raw bodies."""
