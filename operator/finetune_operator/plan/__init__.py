"""What all planners share: the plan as plain values, names of children, conditions."""
