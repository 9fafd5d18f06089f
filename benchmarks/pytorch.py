"""The notebooks' convolutional networks in PyTorch, in a process of its own: beside TensorFlow it may crash."""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks.common import DEFAULT_FILTERS, N_CLASSES, NETWORKS, draw_pixels
from helpers.parallel import end_with_parent

_step = None  # of the process that trains


class PyTorch:
    """A process that trains a network of `NETWORKS` when it is told to; to be closed.

    Parameters
    ----------
    name : str
    precision : {"float32", "mixed_bfloat16"}
    batch_size : int
    """

    def __init__(self, name, precision, batch_size):
        self._batch_size = batch_size
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), _start, (name, precision, batch_size, os.getpid()))
        self.measure(2)

    def measure(self, steps):
        """Train some steps; return images per second."""
        return steps * self._batch_size / self._pool.submit(_train, steps).result()

    def close(self):
        """End the process."""
        self._pool.shutdown()


def _start(name, precision, batch_size, parent):
    global _step
    end_with_parent(parent)
    import torch  # optional

    network = build(name).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-4)
    images, labels = draw_pixels(batch_size, NETWORKS[name][0], N_CLASSES)
    images = torch.from_numpy(images).permute(0, 3, 1, 2)  # as NumPy has them: channels last
    targets = torch.from_numpy(labels.argmax(axis=1))
    in_bfloat16 = precision == "mixed_bfloat16"

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
            loss = torch.nn.functional.cross_entropy(network((images - 127.5) / 74).float(), targets)
        loss.backward()
        optimizer.step()
        loss.item()

    _step = step


def _train(steps):
    start = time.perf_counter()
    for _ in range(steps):
        _step()
    return time.perf_counter() - start


def build(name):
    """Build a network of `NETWORKS`, its images with channels last."""
    import torch  # optional
    from torch import nn

    shape, _, options = NETWORKS[name]
    parts, channels, stride = [], shape[-1], options.get("first_stride", 1)
    for of_block in options.get("filters", DEFAULT_FILTERS):
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
