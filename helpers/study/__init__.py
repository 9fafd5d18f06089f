"""Studies: which setting of a network matters how much: their design, how they are run, and what they say."""
