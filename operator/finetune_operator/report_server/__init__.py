"""The server that trainers report to: its connections, tokens and certificate."""
