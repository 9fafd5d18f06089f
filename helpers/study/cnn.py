"""What a trial of a study trains: a convolutional network from scratch."""

import random
from unittest.mock import patch

from helpers.training.augment import ImageDataGenerator  # isort: skip  (first: it starts TensorFlow without log lines)
import keras
import numpy as np
import pandas as pd

from helpers.evaluation.scores import compute_metrics, make_predictions
from helpers.training.fast import predict_probabilities, set_precision, set_seed
from helpers.training.fit import Recipe, fit_model
from helpers.training.networks import build_cnn

CNN_SETTINGS = {  # of `train_cnn`; a base to change
    "blocks": 3,
    "convolutions": 2,
    "filters": 32,
    "first_stride": 1,
    "average_pooling": False,
    "batch_norm": True,
    "residual": False,
    "dropout": 0.3,
    "epochs": 8,
    "batch_size": 128,
    "learning_rate": 2e-3,
    "weight_decay": 1e-4,
    "augmentation": {},
    "precision": "float32",
}


def train_cnn(settings, seed, pixels, y, sets, statistics):
    """Train one network of `helpers.training.networks.build_cnn` and score it: a ``train`` for `run_study`.

    Parameters
    ----------
    settings : dict
        All of `CNN_SETTINGS`: ``blocks`` of ``convolutions`` each, the first with ``filters`` filters and each further
        one with twice as many; ``augmentation`` holds keywords of ``ImageDataGenerator``; the others are those of
        `set_precision`, `build_cnn` and `Recipe`. A missing or unknown one is a ValueError.
    pixels, y : array (n, height, width, channels), array (n, n_classes)
        Raw pixels, 0 to 255, which may be memory-mapped, and one-hot labels.
    sets : array of str (n,)
        The set of each image: "train", "validation", "test" or others that begin so, such as "test_style_1". Images
        with another one are not used.
    statistics : array (2, channels)
        Mean and standard deviation of the training pixels.

    Returns
    -------
    dict: ``parameters`` (number of trained ones), ``train_minutes`` (of processor time), ``best_epoch``, and for the
    validation and each test set ``<set>_accuracy``, ``<set>_balanced_accuracy`` and, with two classes,
    ``<set>_roc_auc``, as `compute_metrics` has them.
    """
    if wrong := settings.keys() ^ CNN_SETTINGS.keys():
        raise ValueError(f"Missing or unknown settings: {', '.join(sorted(wrong))}.")
    policy, s = keras.config.dtype_policy(), settings
    sets = np.asarray(sets, str)
    rows = {name: np.flatnonzero(sets == name) for name in np.unique(sets)}
    try:
        set_precision(s["precision"])
        set_seed(seed)
        filters = [[s["filters"] * 2**block] * s["convolutions"] for block in range(s["blocks"])]
        options = {name: s[name] for name in ("first_stride", "average_pooling", "batch_norm", "residual", "dropout")}
        # Keras seeds the weights from Python's generator, from which the other threads of a Dask worker draw, too.
        with patch.object(random, "randint", random.Random(seed).randint):
            model = build_cnn(pixels.shape[1:], y.shape[1], statistics, filters=filters, **options)
        data = [(pixels, y[rows.get(name, [])], rows.get(name, [])) for name in ("train", "validation")]
        augment = ImageDataGenerator(**s["augmentation"]) if s["augmentation"] else None
        options = {name: s[name] for name in ("epochs", "batch_size", "learning_rate", "weight_decay")}
        history = fit_model(model, *data, Recipe(augment=augment, **options), seed=seed)
        results = {
            "parameters": sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
            "train_minutes": history["cpu_seconds"].sum() / 60,
            "best_epoch": history.attrs["best_epoch"],
        }
        metrics = ["accuracy", "balanced_accuracy"] + ["roc_auc"] * (y.shape[1] == 2)
        classes = np.array([f"class {number}" for number in range(y.shape[1])])
        for name in ["validation"] + [name for name in rows if name.startswith("test")]:
            labels = classes[y[rows[name]].argmax(axis=1)]
            images = pd.DataFrame({"image_id": rows[name], "group": rows[name], "label": labels})
            y_prob = predict_probabilities(model, pixels, rows[name])
            values = compute_metrics(make_predictions(images, y_prob, classes), resamples=0)["value"]
            results |= {f"{name}_{metric}": float(values[metric]) for metric in metrics}
        return results
    finally:
        keras.utils.clear_session()  # of the trials before nothing stays in memory
        keras.config.set_dtype_policy(policy)
