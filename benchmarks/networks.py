"""The notebooks' convolutional networks, as this project trains them, as Keras comes, and in PyTorch."""

import numpy as np

from benchmarks.common import draw_pixels
from helpers.training import fit, models, tf

NETWORKS = {  # shape, batch size, what build_cnn is called with
    "28x28x1": ((28, 28, 1), 128, {"filters": ((16, 32), (64, 64), (128, 128))}),  # 01_mnist
    "160x120x3": (  # 02_ham10000
        (120, 160, 3),
        32,
        {"filters": ((32,), (32, 48), (64, 96), (128, 192)), "first_stride": 2, "average_pooling": True},
    ),
    "160x120x3 full stride": ((120, 160, 3), 32, {}),  # build_cnn as it comes
}
N_CLASSES = 10


def list_precisions():
    """List float32 and, where the processor multiplies bfloat16 in hardware, mixed_bfloat16."""
    return list(dict.fromkeys(["float32", models.set_precision("auto")]))


def build(name, precision):
    """Build a network of `NETWORKS`."""
    shape, _, options = NETWORKS[name]
    models.set_precision(precision)
    return models.build_cnn(shape, N_CLASSES, make_statistics(shape), **options)


def make_statistics(shape):
    """Make mean and standard deviation of random pixels."""
    return np.full(shape[-1], 127.5), np.full(shape[-1], 74.0)


def draw_batch(name):
    """Draw a batch of a network of `NETWORKS`: float32 pixels and one-hot labels."""
    shape, batch_size, _ = NETWORKS[name]
    return draw_pixels(batch_size, shape, N_CLASSES)


def compile_as_fit(model, learning_rate=1e-3):
    """Compile a model as the notebooks train it."""
    fit.compile_model(model)
    model.optimizer.learning_rate = learning_rate
    return model


def copy_as_keras(model, learning_rate=1e-3):
    """Copy a model, with its weights, to what Keras makes of it: float32, its own layers and its own AdamW."""

    def replace(layer):
        is_fused = isinstance(layer, models.FusedBatchNormalization)
        return (
            tf.keras.layers.BatchNormalization.from_config(layer.get_config() | {"dtype": "float32"})
            if is_fused
            else None
        )

    plain = models.copy_model(model, "keras", "float32", replace)
    plain.compile(
        tf.keras.optimizers.AdamW(learning_rate, weight_decay=1e-4), "categorical_crossentropy", metrics=["accuracy"]
    )
    return plain


def build_torch(name):
    """Build the same network in PyTorch, its images with channels last."""
    import torch  # optional
    from torch import nn

    shape, _, options = NETWORKS[name]
    filters = options.get("filters", ((32, 32), (64, 64), (128, 128)))
    parts, channels, stride = [], shape[-1], options.get("first_stride", 1)
    for of_block in filters:
        for number, n_filters in enumerate(of_block, 1):
            parts.append(nn.Conv2d(channels, n_filters, 3, stride, padding=1, bias=False))
            parts += [nn.MaxPool2d(2, ceil_mode=True)] if number == len(of_block) else []
            parts += [nn.BatchNorm2d(n_filters), nn.ReLU()]
            channels, stride = n_filters, 1
    parts += [nn.AdaptiveAvgPool2d(1)] if options.get("average_pooling") else []
    parts += [nn.Flatten(), nn.Dropout(0.3), nn.LazyLinear(N_CLASSES)]
    network = nn.Sequential(*parts)
    network(torch.zeros(2, shape[-1], *shape[:2]))  # tells the last layer its size
    return network.to(memory_format=torch.channels_last)
