"""Evaluation: metrics with intervals, robustness, plots and exports. Starts from predictions as a table."""
