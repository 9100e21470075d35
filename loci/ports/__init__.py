"""Floor 1: the outside world, one small adapter per file. Importing a file here never loads an extra or torch."""
