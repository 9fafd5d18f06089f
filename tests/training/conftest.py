"""What tests of several modules share: the state of Keras, and calls of the fused kernel."""

import keras
import pytest

from helpers.training import tf


@pytest.fixture(autouse=True)
def _keep_dtype_policy():
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


@pytest.fixture
def fused_calls(monkeypatch):
    """Count the calls of the fused kernel."""
    calls = []
    kernel = tf.raw_ops.FusedBatchNormV3

    def count(**arguments):
        calls.append(arguments["is_training"])
        return kernel(**arguments)

    monkeypatch.setattr(tf.raw_ops, "FusedBatchNormV3", count)
    return calls
