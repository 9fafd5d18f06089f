"""What the built-in samples are drawn by, one module for each data set."""
