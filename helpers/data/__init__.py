"""Data: finding, indexing, checking, splitting and preparing images. Knows nothing of training or evaluation."""
