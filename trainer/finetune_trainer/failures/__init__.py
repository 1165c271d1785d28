"""What can go wrong in a process, told apart and put into the contract's words."""
