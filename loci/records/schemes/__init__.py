"""Schemes: one paper, one file."""
