"""Floor 0: what every room speaks. Standard library and numpy only."""
