"""The command line: validates, writes and runs FineTuneJob manifests on this machine, and shows those in a cluster."""
