"""What goes wrong in a process: recognised, and put into the contract's reasons, without secrets."""
