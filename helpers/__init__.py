"""Data handling, training and evaluation for the notebooks.

``helpers.data``, ``helpers.training`` and ``helpers.evaluation`` never import one another: the notebook
is the program, and the only place where they meet. What passes between them is a pandas DataFrame with one
row per image, NumPy arrays, a list of class names, and a Keras model.
"""
