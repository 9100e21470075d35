"""Bytes before and while running: what a step will hold, what it holds, and in which numbers."""
