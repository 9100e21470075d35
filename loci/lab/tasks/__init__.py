"""Tasks: what claims are tested on. Those that train need torch and are loaded when a claim runs."""
