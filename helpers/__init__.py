"""Data handling, training and evaluation for the notebooks.

``Experiment`` and ``open_data_set`` are all that a first notebook needs, and ``Review`` to evaluate its model. They
stand above three rooms, ``helpers.data``, ``helpers.training`` and ``helpers.evaluation``, which never import one
another. What passes between the rooms is a pandas DataFrame with one row per image, arrays, a list of class names, and
a Keras model.
"""

__all__ = ["Experiment", "Review", "open_data_set"]


def __getattr__(name):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from helpers import experiment, review  # here only: they bring TensorFlow, which takes seconds to start

    return getattr(review if name == "Review" else experiment, name)
