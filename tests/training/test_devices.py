"""Several devices at once, tried with two that are made of one processor."""

import json
import subprocess
import sys

import numpy as np
import pytest

from helpers.settings import PROJECT_FOLDER
from helpers.training import tf
from helpers.training.fast import set_precision, use_all_gpus

PROGRAM = """
import json, sys
from pathlib import Path
import tensorflow as tf
processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
import numpy as np
from helpers.training import fast, fit, networks

fast.set_precision("float32")
pixels = np.random.default_rng(0).integers(0, 256, (64, 12, 12, 1)).astype("uint8")
y = np.eye(2, dtype="float32")[np.arange(64) % 2]

first_of_last_epoch = np.random.default_rng([42, fit._AUGMENTATION, 3, 0]).bit_generator.state

killing = Path(sys.argv[1], "killing")  # outside of the augmenter, whose settings a checkpoint knows

def train(devices, name, dies=False):
    killing.touch() if dies else killing.unlink(missing_ok=True)
    used = fast.use_all_gpus([f"CPU:{number}" for number in range(devices)])
    fast.set_seed(1)
    model = networks.build_cnn((12, 12, 1), 2, ([128], [70]), filters=((4,),), batch_norm=False, dropout=0)
    batches = []

    def augment(images, rng):
        batches.append(1)
        if killing.exists() and rng.bit_generator.state == first_of_last_epoch:
            raise RuntimeError("killed")
        return images + rng.normal(size=images.shape)

    recipe = fit.Recipe(epochs=4, batch_size=32, monitor="last", class_weights=[0.5, 1.5], augment=augment)
    checkpoint = Path(sys.argv[1], f"{name}.npz")
    try:
        history = fit.fit_model(model, (pixels, y), (pixels, y), recipe, checkpoint=checkpoint)
    except tf.errors.OpError as error:
        return [str(error), checkpoint.is_file()]
    predicted = fast.predict_probabilities(model, pixels)
    replicas = model.distribute_strategy.num_replicas_in_sync
    return [used, replicas, history["val_loss"].tolist(), predicted.tolist(), len(batches)]

print(json.dumps([train(1, "one"), train(2, "two"), train(2, "state", dies=True), train(2, "state")]))
"""


def test_two_devices_train_like_one_and_go_on_where_they_were_killed(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT_FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, two, killed, resumed = json.loads(done.stdout.splitlines()[-1])
    assert [one[:2], two[:2]] == [[1, 1], [2, 2]]
    np.testing.assert_allclose(one[2], two[2], rtol=1e-5)
    np.testing.assert_allclose(one[3], two[3], atol=1e-5)
    assert "killed" in killed[0]
    assert killed[1]
    assert "cnn: going on after epoch 3 of 4" in done.stdout
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
    details = [{"compute_capability": capability} if capability else {} for capability in capabilities]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(range(len(details))))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", details.__getitem__)
    assert set_precision() == expected
