"""Several devices at once, tried with two that are made of one processor."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from helpers.settings import PROJECT_FOLDER
from helpers.training import tf
from helpers.training.fast import set_precision, use_all_gpus

PROGRAM = """
import json, sys
import tensorflow as tf
devices, checkpoint, dies = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "dies"
processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
import numpy as np
from helpers.training import fast, fit, networks

fast.set_precision("float32")
used = fast.use_all_gpus([f"CPU:{number}" for number in range(devices)])
pixels = np.random.default_rng(0).integers(0, 256, (64, 12, 12, 1)).astype("uint8")
y = np.eye(2, dtype="float32")[np.arange(64) % 2]
fast.set_seed(1)
model = networks.build_cnn((12, 12, 1), 2, ([128], [70]), filters=((4,), (8,)), batch_norm=False, dropout=0)
batches = []

def augment(images, rng):
    batches.append(1)
    if dies and len(batches) > 13:  # of 17; some are prepared ahead
        raise SystemExit("killed")
    return images + rng.normal(size=images.shape)

recipe = fit.Recipe(epochs=8, batch_size=32, monitor="last", class_weights=[0.5, 1.5], augment=augment)
history = fit.fit_model(model, (pixels, y), (pixels, y), recipe, checkpoint=checkpoint)
predicted = fast.predict_probabilities(model, pixels)
replicas = model.distribute_strategy.num_replicas_in_sync
print(json.dumps([used, replicas, history["val_loss"].tolist(), predicted.tolist(), len(batches)]))
"""


def train(devices, checkpoint, *arguments):
    command = [sys.executable, "-c", PROGRAM, str(devices), str(checkpoint), *(arguments or ("",))]
    done = subprocess.run(command, cwd=PROJECT_FOLDER, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else done.stderr


def test_two_devices_train_like_one_and_go_on_where_they_were_killed(tmp_path):
    checkpoint = tmp_path / "state.npz"
    one, two = (train(devices, tmp_path / f"{devices}.npz") for devices in (1, 2))
    assert [of[:2] for of in (one, two)] == [[1, 1], [2, 2]]
    np.testing.assert_allclose(one[2], two[2], rtol=1e-5)
    np.testing.assert_allclose(one[3], two[3], atol=1e-5)
    assert "killed" in train(2, checkpoint, "dies")
    assert checkpoint.is_file()
    resumed = train(2, checkpoint)
    assert resumed[4] < two[4]
    assert resumed[3] == two[3]


def test_without_gpus_nothing_is_distributed():
    before = tf.distribute.get_strategy()
    assert use_all_gpus() == 1
    assert tf.distribute.get_strategy() is before


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ([(9, 0)], "mixed_bfloat16"),
        ([(8, 0), (8, 6)], "mixed_bfloat16"),
        ([(7, 5)], "mixed_float16"),
        ([(9, 0), (7, 0)], "mixed_float16"),
        ([(6, 1)], "float32"),
        ([None], "float32"),
    ],
)
def test_automatic_precision_follows_the_gpus(monkeypatch, capabilities, expected):
    details = [{"compute_capability": of} if of else {} for of in capabilities]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(range(len(details))))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", details.__getitem__)
    policy = keras.config.dtype_policy()
    try:
        assert set_precision() == expected
    finally:
        keras.config.set_dtype_policy(policy)
