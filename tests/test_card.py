"""The model card: it says what was planted, and its lines of Python run."""

import dataclasses
import re

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import Review
from helpers.data.catalog import DataSet, list_data_sets
from helpers.evaluation import report
from helpers.training import surgery

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
SHAPE = (16, 16, 3)
RECORD = DataSet(
    name="coins",
    title="Coins",
    task="Is it copper or silver?",
    class_names=("cu", "ag"),
    class_labels={"cu": "copper", "ag": "silver"},
    layout="class_folders",
    key_file="train",
    files="images in train/{cu,ag}/ and test/{cu,ag}/",
    handle="kaggle:nobody/coins/versions/3",
    expected_counts={"train": 120, "test": 60},
    group_rule="photographs of one coin",
    image_shape=SHAPE,
    allowed_augmentation="flips",
    citation="Minted by hand (2026)",
    licence="CC0 of coins",
    medical=True,
)
HEADINGS = [
    "Model details",
    "Intended use",
    "Training and test data",
    "Evaluation",
    "What it refuses",
    "Limits",
    "Licence and citation",
]


@pytest.fixture(scope="module")
def fitted(draw_experiment):
    """Open dark and light coins, and fit a calibrated model to them."""
    rng = np.random.default_rng(0)

    def draw(label):
        level = {"cu": 110, "ag": 140}[label]
        return np.clip(level + rng.normal(0, 25) + rng.normal(0, 40, SHAPE), 0, 255).astype("uint8")

    experiment = draw_experiment("09_coins", RECORD, draw, {"train": 60, "test": 30}, validation=0.25)
    experiment.fit_simple("bright ness", experiment.data.load_pixels(SHAPE))
    experiment.calibrate()
    experiment.choose("accuracy")
    experiment.score("test", resamples=50)
    return experiment


@pytest.fixture
def experiment(fitted, monkeypatch):
    """Give the experiment as it was before anything was saved or reviewed."""
    for name in ("saved", "reviews", "chosen", "temperatures"):
        value = getattr(fitted, name)
        monkeypatch.setattr(fitted, name, value.copy() if isinstance(value, dict) else value)
    return fitted


def review_model(experiment, **options):
    review = Review(experiment, "bright ness", positive=["silver"], threshold=0.25, resamples=50, **options)
    review.answers["subgroups"] = pd.DataFrame(
        [
            ["size", "small", metric, value, np.nan, np.nan, 21, 2]
            for metric, value in {"accuracy": 0.5, "sensitivity": 0.25, "specificity": 0.75}.items()
        ],
        columns=["by", "subgroup", "metric", "value", "low", "high", "images", "groups"],
    )
    review.answers["calibration"] = pd.DataFrame(
        {"measure": ["before calibration", "calibration error"], "value": [0.04, 0.05], "low": np.nan, "high": np.nan}
    )
    review.answers["leaks"] = pd.DataFrame({"all": [0.9], "clean": [0.8]})
    review.answers["robustness_summary"] = pd.DataFrame({"clean": [0.9], "corrupted": [0.6], "worst": ["contrast"]})
    review.answers["refused"] = pd.DataFrame({"kind": ["test", "noise"], "images": [60, 9], "refused": [0.05, 1.0]})
    return review


def read_card(path):
    return path.with_suffix(".md").read_text(encoding="utf-8")


def complete(experiment, **options):
    """Save the model, have its card completed, and read it."""
    path = experiment.save_model("bright ness", **options)
    review_model(experiment, model=experiment.saved["bright ness"]["model"])
    experiment.save("by coin")
    return read_card(path)


def test_a_saved_model_has_a_card_at_once_that_says_what_is_missing(experiment):
    text = read_card(experiment.save_model("bright ness"))
    assert re.findall(r"(?m)^## (.+)$", text) == HEADINGS
    assert "**This card is not complete:**" in text
    assert "ROC AUC" not in text


def test_the_card_is_complete_when_the_results_are_saved(experiment):
    text = complete(experiment)
    assert "in none of the sets" not in text
    assert re.findall(r"(?m)^## (.+)$", text) == HEADINGS
    assert "not complete" not in text
    metric = experiment.scores["bright ness"]["test"].loc["accuracy"]
    for line in (
        "# Model card: bright_ness, quick run of Coins",
        "**Not for clinical use.**",
        "| question | Is it copper or silver? |",
        "2 classes: copper, silver |",
        "colour images, 16 pixels wide and 16 high",
        "Minted by hand (2026). Source: `kaggle:nobody/coins`, version 3. Licence of the data: CC0 of coins.",
        "makes a group: photographs of one coin.",
        "| training | 90 | 90 |",
        "| test | 60 | 60 |",
        f"`{experiment.data.summarize()['fingerprint']}`",
        "the model was chosen: by coin.",
        "It is the model that was chosen.",
        f"| accuracy | {report.format_metric('accuracy', metric)} |",
        "an alarm where the evaluated probability of silver is 0.25 or more",
        "0.040 (no interval) before calibration, and 0.050 (no interval) after it. Calibration did not help here.",
        "| by | subgroup | images | accuracy of the alarm | sensitivity | specificity |",
        "Subgroups with fewer than 20 test images are left out.",
        "| size | small | 21 | 50.00 % (2 groups: no interval) | 25.00 % (2 groups: no interval) | 75.00 %",
        "on 60 test images the balanced accuracy falls from 90.0% to 60.0%",
        "some of the 60 test images look like a training image. The accuracy is 90.0% on all test images, and 80.0%",
        "Read it before you pass on a model",
        "keeps what 90 training images look like",
        "Marked by mistake were 5.0 % (",
        "| noise | 9 | 100% |",
        "seed 42",
        "keras 3.",
    ):
        assert line in text, line


def test_the_sample_is_named_in_the_first_line(experiment, monkeypatch):
    monkeypatch.setattr(experiment.report, "is_sample", True)
    text = complete(experiment)
    first, second, *_ = text.split("\n\n")
    assert first == "# Model card: bright_ness, drawn sample of Coins"
    assert "not on the real images" in second
    assert text.count("CC0 of coins") == 1  # a licence of data that were not used is no condition


def test_its_lines_of_python_predict_what_the_model_predicts(experiment, monkeypatch, capsys):
    path = experiment.save_model("bright ness")
    (lines,) = re.findall(r"```python\n(.*?)```", read_card(path), re.DOTALL)
    image = experiment.data.images.iloc[experiment.data.rows("test")[0]]
    with Image.open(experiment.data.source.folder / image["path"]) as opened:
        opened.resize((16, 16)).save(path.with_name("image.png"))
    monkeypatch.chdir(path.parent)
    exec(compile(lines, "card", "exec"), {})
    name, probability = capsys.readouterr().out.split()
    expected = experiment.predict("bright ness").set_index("image_id").loc[image["image_id"]]
    assert name == expected["y_pred"]
    assert float(probability) == pytest.approx(expected["confidence"], abs=1e-5)


def test_it_says_how_the_evaluated_probabilities_are_reached(experiment):
    experiment.temperatures["bright ness"] = 0.2
    text = complete(experiment)
    assert "The file gives other probabilities than those that were evaluated." in text
    assert "`probabilities **= 5.0000; probabilities /= probabilities.sum()`" in text


def test_it_says_that_calibration_is_built_in(experiment):
    experiment.temperatures["bright ness"] = 0.2
    model = surgery.build_in_temperature(experiment.models["bright ness"], 0.2, "calibrated")
    text = complete(experiment, model=model, pixels=experiment.get_pixels("bright ness"))
    assert "The file gives the probabilities that were evaluated, but for rounding: 0.00" in text


def test_a_review_of_another_model_is_left_out(experiment):
    review_model(experiment)
    model = surgery.copy_model(experiment.models["bright ness"], "copy", "float32")
    path = experiment.save_model("bright ness", model, experiment.get_pixels("bright ness"))
    experiment.save("by coin")
    assert "### Subgroups" not in read_card(path)


def test_a_model_that_was_not_chosen_says_so(experiment):
    experiment.chosen = "another one"
    assert "Of the models of the notebook **another one** was chosen. This file is **bright ness**." in complete(
        experiment
    )


def test_the_chosen_model_under_another_name_is_known_by_its_predictions(experiment, monkeypatch):
    alike = {("another one", part): table.copy() for (_, part), table in experiment.predictions.items()}
    monkeypatch.setattr(experiment, "predictions", experiment.predictions | alike)
    experiment.chosen = "another one"
    assert "This file holds the model that was chosen: **another one**." in complete(experiment)


def test_images_in_no_set_and_a_model_without_weights_are_told(experiment, monkeypatch):
    known = experiment.data
    images = known.images.copy()
    images.loc[known.rows("test")[:7], ["split", "group"]] = "unlabelled", None
    monkeypatch.setattr(experiment, "data", dataclasses.replace(known, images=images))
    inputs = keras.Input(SHAPE)
    shade = keras.layers.GlobalAveragePooling2D()(keras.layers.AveragePooling2D(16)(inputs))
    model = keras.Model(inputs, keras.layers.Softmax()(shade[:, :2]))
    text = read_card(experiment.save_model("bright ness", model, experiment.get_pixels("bright ness")))
    assert "| test | 53 | 53 |\n| in none of the sets | 7 | unknown |" in text
    assert "| kind | Keras model without weights to train |" in text


def test_a_name_that_a_shell_would_divide_is_quoted(experiment):
    pixels = experiment.get_pixels("bright ness")
    path = experiment.save_model("cu; ag", experiment.models["bright ness"], pixels, "train", "validation")
    assert "python -m helpers.predict 'cu;_ag.keras' FOLDER" in read_card(path)


def test_leaks_by_group_are_told(experiment, monkeypatch):
    images = experiment.data.images.assign(group="one coin")
    monkeypatch.setattr(experiment, "data", dataclasses.replace(experiment.data, images=images))
    assert "look like a training image, or share its group." in complete(experiment)


def test_a_group_in_two_sets_is_told(experiment, monkeypatch):
    images = experiment.data.images.assign(group="one coin")
    monkeypatch.setattr(experiment, "data", dataclasses.replace(experiment.data, images=images))
    text = read_card(experiment.save_model("bright ness"))
    assert "Some groups are in two of the sets." in text


def test_the_medical_data_sets_are_named():
    assert [record.name for record in list_data_sets() if not record.medical] == ["mnist", "plants"]


def test_a_split_without_a_test_set_has_a_card(experiment, monkeypatch):
    monkeypatch.setattr(experiment.data, "images", experiment.data.images.replace({"split": {"test": "unlabelled"}}))
    text = read_card(experiment.save_model("bright ness"))
    assert "| training | 90 | 90 |" in text
    assert "| test |" not in text
