"""Studies: which setting of a network matters how much."""
