"""Floor 1: the outside world, one small adapter per file. An import here never loads an extra or torch."""
