"""Floor 5: the front. The command line."""
