"""The fused optimizer: the same weights as Keras's, in fewer operations."""

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import layers

from helpers.training import tf
from helpers.training.fast import FusedAdamW

SETTINGS = {"learning_rate": 0.02, "weight_decay": 0.3, "use_ema": True, "ema_momentum": 0.8}

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture
def fused_calls(monkeypatch):
    calls = []
    kernel = tf.raw_ops.ResourceApplyAdam
    monkeypatch.setattr(tf.raw_ops, "ResourceApplyAdam", lambda **arguments: calls.append(1) or kernel(**arguments))
    return calls


def train(optimizer, steps=5, seed=0):
    """Apply the same gradients; return weights, momentums and averages."""
    rng = np.random.default_rng(seed)
    variables = [keras.Variable(rng.normal(size=shape).astype("float32")) for shape in ((3, 4), (4,))]
    optimizer.build(variables)
    for step in range(steps):
        optimizer.learning_rate = 0.02 / (step + 1)
        optimizer.apply([keras.ops.convert_to_tensor(rng.normal(size=v.shape).astype("float32")) for v in variables])
    return [np.asarray(variable) for variable in [*variables, *optimizer.variables]]


@pytest.mark.parametrize("changed", [{}, {"weight_decay": 0.0}, {"use_ema": False}, {"beta_1": 0.5, "epsilon": 0.1}])
def test_weights_are_those_of_keras(changed, fused_calls):
    ours = train(FusedAdamW(**SETTINGS | changed))
    assert len(fused_calls) == 10
    theirs = train(keras.optimizers.AdamW(**SETTINGS | changed))
    assert len(fused_calls) == 10
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_average_begins_with_the_first_weights():
    optimizer = FusedAdamW(**SETTINGS)
    weights, *_ = train(optimizer, steps=1)
    np.testing.assert_allclose(np.asarray(optimizer._model_variables_moving_average[0]), weights, rtol=1e-6)


def test_what_the_kernel_has_not_is_left_to_keras(fused_calls):
    ours, theirs = (train(kind(**SETTINGS, amsgrad=True)) for kind in (FusedAdamW, keras.optimizers.AdamW))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    table = keras.Variable(np.ones((4, 2), "float32"))
    optimizer = FusedAdamW(0.1, weight_decay=0.0)
    optimizer.build([table])
    optimizer.apply([tf.IndexedSlices(tf.ones((1, 2)), tf.constant([2]), tf.constant([4, 2]))])
    np.testing.assert_allclose(np.asarray(table)[2], 0.9, atol=1e-5)
    assert not fused_calls


def test_a_trained_model_can_be_forgotten():
    model = keras.Sequential([layers.Input((2,)), layers.Dense(1)])
    model.compile(FusedAdamW(**SETTINGS), "mse")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    momentum = weakref.ref(model.optimizer._momentums[0].value.handle)
    gc.collect()
    assert momentum() is not None
    model.compile("sgd")
    gc.collect()
    assert momentum() is None


def test_saved_model_opens_with_plain_keras(tmp_path):
    model = keras.Sequential([layers.Input((2,)), layers.Dense(1)])
    model.compile(FusedAdamW(**SETTINGS), "mse")
    model.train_on_batch(np.ones((2, 2)), np.ones((2, 1)))
    model.save(tmp_path / "model.keras")
    assert type(keras.models.load_model(tmp_path / "model.keras").optimizer) is keras.optimizers.AdamW
