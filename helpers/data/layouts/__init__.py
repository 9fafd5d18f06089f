"""The layouts: how each data set's files are organized, one module for each way."""
