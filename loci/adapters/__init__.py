"""Adapters: one small file for each framework. A file imports its framework itself, and nothing imports the file but you."""
