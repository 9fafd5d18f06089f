"""Takeaways: each sentence says what its numbers say."""

import numpy as np
import pandas as pd
import pytest

from helpers.evaluation.calibration import apply_temperature, fit_temperature
from helpers.evaluation.report import format_value
from helpers.evaluation.scores import compute_calibration_error, compute_roc, make_predictions
from helpers.evaluation.takeaways import (
    describe_calibration,
    describe_choice,
    describe_confusion,
    describe_counts,
    describe_history,
    describe_roc,
    describe_worst,
)


def test_counts():
    values = pd.Series(["nevus"] * 1500 + ["melanoma"] * 300 + ["wart"] * 200)
    assert describe_counts(values, "lesions") == (
        "**nevus** has the most lesions, 1,500 of 2,000 (75.0 %); **wart** has the fewest, 200 (10.0 %)."
    )
    assert describe_counts(pd.Series(["a", "a", "b", "b", "c"])) == (
        "**a** and **b** have the most images, 2 of 5 (40.0 %); **c** has the fewest, 1 (20.0 %)."
    )
    assert describe_counts(pd.Series(["a", "b"] * 600)) == "All have the same number of images, 600 each."


def make_history(*losses):
    values = np.linspace(0.5, 0.9, len(losses))
    history = {"accuracy": values, "val_accuracy": values - 0.1, "val_loss": losses}
    return pd.DataFrame(history, index=pd.RangeIndex(1, len(losses) + 1, name="epoch"))


def test_history():
    start = "**cnn** has an accuracy of 90.0% in training and 80.0% in validation in its last epoch. "
    assert describe_history("cnn", make_history(1.0, 0.6, 0.5)) == (
        f"{start}Its validation loss is lowest in the last epoch, so that more epochs might help."
    )
    assert describe_history("cnn", make_history(1.0, 0.5, 0.7, 0.8)) == (
        f"{start}Its validation loss is lowest in epoch 2 (0.50) and then rises to 0.80: a sign of over-fitting, or "
        "chance where there are few images."
    )
    assert describe_history("cnn", make_history(1.0, 0.5, 0.51)) == (
        f"{start}Its validation loss hardly changes after epoch 2."
    )
    text = describe_history("cnn", make_history(1.0, 0.5), "held-out data")
    assert "80.0% in held-out data in its last epoch. Its held-out data loss is lowest in the last epoch" in text
    assert describe_history("cnn", make_history(1.0)).endswith(" It was trained for one epoch only.")


def test_history_of_a_network_that_knows_its_training_images_by_heart():
    history = make_history(1.0, 0.5)
    assert "over-fits" not in describe_history("cnn", history)
    history["accuracy"] += 0.05
    assert "in its last epoch. Training is far better: the network over-fits" in describe_history("cnn", history)


def make_table(pairs):
    return pd.DataFrame([pair.split() for pair in pairs], columns=["y_true", "y_pred"])


def test_confusion():
    right = ["a a", "b b", "c c", "d d"]
    assert describe_confusion(make_table(right)) == "All 4 images are classified right."
    assert describe_confusion(make_table([*right, "a b", "b a", "c d"])) == (
        "3 of 7 images are classified wrong; 2 of these errors are between **a** and **b**, more than between any "
        "other two classes."
    )
    assert "; 1 of these error is between **a** and **c**, more" in describe_confusion(make_table([*right, "c a"]))
    tied = "2 of 6 images are classified wrong."
    assert describe_confusion(make_table([*right, "a b", "c d"])) == tied  # no pair stands out
    assert describe_confusion(make_table(["a a", "b b", "b a"])) == "1 of 3 images are classified wrong."


def test_roc(predict):
    roc = pd.DataFrame({"class": ["a", "a", "b", "b", "c"], "roc_auc": [0.8, 0.8, 0.95123, 0.95123, 0.6]})
    assert describe_roc(roc) == (
        "The ROC AUC is largest for **b** (0.951) and smallest for **c** (0.600); chance would reach 0.5."
    )
    assert describe_roc(roc[:2]) == "The ROC AUC is 0.800; chance would reach 0.5."
    of_models = roc.assign(model=roc["class"].map({"a": "net", "b": "best", "c": "simple"}), **{"class": "ill"})
    assert "largest for **best** (0.951) and smallest for **simple** (0.600)" in describe_roc(of_models)
    table = predict()
    areas = compute_roc(table).groupby("class")["roc_auc"].first()
    assert f"largest for **{areas.idxmax()}** ({areas.max():.3f})" in describe_roc(compute_roc(table))


def make_predictions_of(confidence, right, count=400, names=("a", "b")):
    """Make predictions that are as sure as ``confidence`` and right in the share ``right``."""
    is_right = np.arange(count) < round(right * count)
    y_prob = np.where(is_right[:, None], [confidence, 1 - confidence], [1 - confidence, confidence])
    images = pd.DataFrame({"image_id": np.arange(count).astype(str), "group": np.arange(count), "label": names[0]})
    images.loc[::2, "label"] = names[1]
    y_prob[::2] = y_prob[::2, ::-1]
    return make_predictions(images, y_prob, names)


def calibrate(confidence, right, tested=None):
    """Describe what the temperature of validation images does to test images, which are like them by default."""
    temperature = fit_temperature(make_predictions_of(confidence, right))
    before = make_predictions_of(confidence, right if tested is None else tested)
    after = apply_temperature(before, temperature)
    errors = [compute_calibration_error(table) for table in (before, after)]
    text = describe_calibration(*errors, temperature)
    first, last = map(format_value, errors)
    start = f"The expected calibration error is {first} before and {last} after calibration"
    assert text.startswith(start)
    return text.removeprefix(start), f"(temperature {temperature:.2f})."


@pytest.mark.parametrize(
    ("confidence", "right", "tested", "verdict", "meaning"),
    [
        (0.95, 0.7, None, "so it helped", "The model was too sure"),
        (0.6, 0.9, None, "so it helped", "The model was not sure enough"),
        (0.8, 0.8, None, "that is, it hardly changed", "The model was about as sure as it should be"),
        (
            *(0.95, 0.7, 0.95),
            "so it did harm",
            "The model was too sure",
        ),
    ],
)
def test_calibration(confidence, right, tested, verdict, meaning):
    text, temperature = calibrate(confidence, right, tested)
    told = "tell the calibrated model from" if "harm" in verdict else "do not tell the calibrated model from"
    assert text == (
        f", {verdict}. {meaning} on the validation images {temperature} These images {told} a perfectly calibrated one."
    )


def test_calibration_on_images_of_few_groups():
    before = make_predictions_of(0.95, 0.7)
    before["group"] = np.arange(400) % 4
    errors = [compute_calibration_error(table) for table in (before, apply_temperature(before, 3))]
    text = describe_calibration(*errors, 3.0)
    assert "error is 0.250 (4 groups: no interval) before" in text
    assert text.endswith("on the validation images (temperature 3.00).")


def test_calibration_errors_whose_intervals_overlap_may_differ_by_chance():
    first, last = ({"value": value, "low": 0.0, "high": value + 0.05, "groups": 40} for value in (0.04, 0.06))
    text = describe_calibration(first, last, 1.3)
    assert "after calibration, which is higher, but the intervals overlap, so that it may be chance. The" in text


@pytest.mark.parametrize(
    ("right", "temperature", "reason"),
    [(1.0, "0.05", "all validation images are right"), (0.5, "20.00", "the model knows nothing about them")],
)
def test_a_temperature_at_the_limit_of_the_search_says_nothing(right, temperature, reason):
    text, _ = calibrate(0.8, right, 0.8)
    assert text == (
        f". The temperature of {temperature} is the limit of the search, because {reason}: these images cannot tell "
        "how sure the model should be, and the calibrated confidence is not to be trusted."
    )


def test_the_worst_subgroup():
    row = {"by": "sex", "subgroup": "male", "value": 0.6, "low": 0.4, "high": 0.7, "compared": 4, "below": True}
    row["overall"] = 0.8
    text = describe_worst(pd.Series(row), "sensitivity")
    assert text == (
        "The sensitivity is lowest for **sex: male**, 60.0% (40.0% to 70.0%, widened because it is the worst of 4). "
        "The interval lies below the value of all images."
    )
    row["below"] = False
    assert describe_worst(pd.Series(row), "sensitivity").endswith("all images, so that this may be chance.")
    row["overall"] = 0.6
    assert (
        describe_worst(pd.Series(row), "specificity") == "No subgroup has a lower specificity than all images (60.0%)."
    )
    assert describe_worst(None, "specificity") == "No subgroup has enough groups for an interval of its specificity."


def test_the_choice():
    table = pd.DataFrame({"accuracy": [0.8, 0.9, 0.85]}, index=["simple", "net", "other"])
    lead = pd.Series({"value": 0.1, "low": 0.02, "high": 0.18, "groups": 40}, name="simple")
    assert describe_choice(table, "net", "accuracy", lead) == (
        "**net** is chosen (accuracy 90.0%); the next one, **other**, has 85.0%. It is ahead of simple, the simplest "
        "model, by +0.100 (+0.020 to +0.180), which is more than chance."
    )
    lead["low"] = -0.02
    assert describe_choice(table, "simple", "accuracy", lead) == (
        "**simple** is chosen (accuracy 80.0%). The best other model is ahead by +0.100 (−0.020 to +0.180), which does "
        "not prove it better."
    )
