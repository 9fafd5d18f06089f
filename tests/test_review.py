"""The review: it answers the same questions for every model, and the answers follow what was planted."""

from functools import partial

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from keras import layers
from PIL import Image

from helpers import Review
from helpers.data.catalog import DataSet
from helpers.evaluation import scores
from helpers.files import InputError
from helpers.training.fit import Recipe

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:vert"),  # seaborn calls Matplotlib in a way that it is giving up
]
SHAPE = (32, 32, 3)
RECORD = DataSet(
    name="stones",
    title="Stones",
    task="Is it flint or chalk?",
    class_names=("flint", "chalk"),
    class_labels={"flint": "flint", "chalk": "chalk"},
    layout="class_folders",
    key_file="train",
    files="images in train/{flint,chalk}/ and test/{flint,chalk}/",
    handle="kaggle:nobody/stones/versions/1",
    expected_counts={"train": 160, "test": 80},
    group_rule="nothing",
    image_shape=SHAPE,
    allowed_augmentation="flips",
    citation="drawn",
    licence="CC0",
)


def draw(rng, label):
    """Draw a stone: light or dark on average, with a rough pattern of its own that copies share."""
    pattern = np.asarray(Image.fromarray(rng.integers(0, 256, (8, 8, 3), "uint8")).resize((32, 32), 2), "float64")
    level = rng.normal(40 if label == "chalk" else -40, 50)
    return np.clip(pattern * 0.6 + 50 + level, 0, 255).astype("uint8")


def plant_leaks(stones):
    with Image.open(stones / "train/flint/train_flint_0.png") as image:  # in the test set: a copy, turned and mirrored
        image.transpose(Image.Transpose.ROTATE_90).save(stones / "test/flint/test_flint_1.png")
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(stones / "test/flint/test_flint_2.png")
    with Image.open(stones / "train/flint/train_flint_3.png") as image:  # a wrong label, and the same pixels
        image.save(stones / "test/chalk/test_chalk_0.png", compress_level=1)


@pytest.fixture(scope="module")
def experiment(draw_experiment):
    stone, counts = partial(draw, np.random.default_rng(0)), {"train": 80, "test": 40}
    experiment = draw_experiment("08_stones", RECORD, stone, counts, validation=0.4, change=plant_leaks)
    x = experiment.data.load_pixels(SHAPE)
    experiment.fit_simple("brightness", x)
    experiment.fit("network", build, x, Recipe(epochs=3, batch_size=16, learning_rate=0.01))
    experiment.calibrate()
    return experiment


def build():
    inputs = keras.Input(SHAPE)
    maps = layers.ReLU()(layers.Conv2D(4, 3, strides=2)(layers.Rescaling(1 / 255)(inputs)))
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling2D()(maps)))


@pytest.fixture
def review(experiment):
    yield Review(experiment, "network", positive=["flint"], kind="photograph", most=30, resamples=50)
    plt.close("all")


def read(review, name):
    return pd.read_csv(review.report.folder / f"{name}.csv")


# The simplest model


def test_the_simple_model_is_a_model_like_others(experiment):
    table = experiment.predict("brightness", "test")
    assert scores.compute_metrics(table, 0).loc["roc_auc", "value"] > 0.7
    assert table["confidence"].between(0.5, 1).all()
    path = experiment.save_model("brightness")
    assert path.name == "brightness.keras"
    y_prob, _ = scores.get_probabilities(experiment.predict("brightness", "train"))
    assert np.allclose(y_prob.mean(axis=0), experiment.prior, atol=0.02)  # the shares of the classes are kept


def test_the_simple_model_is_chosen_unless_the_network_is_measurably_better(experiment):
    experiment.choose("accuracy", simple=["brightness"])
    assert experiment.chosen == "brightness"  # the network was hardly trained, and knows little more
    names = experiment.data.class_names
    truth = experiment.data.encode_labels(experiment.data.rows("validation"))
    experiment.add_predictions("oracle", "validation", truth * 0.98 + 0.01)
    experiment.choose("accuracy", among=["brightness", "network", "oracle"], simple=["brightness"])
    assert experiment.chosen == "oracle"
    assert names == ("flint", "chalk")
    experiment._drop(lambda key: key[0] == "oracle")


# The questions


def test_what_hardly_varies_does_not_outweigh_the_rest(review, monkeypatch):
    features = np.random.default_rng(0).normal(size=(len(review.images), 20)).astype("float32")
    features[:, 0] = 0
    features[review.rows[0], 0] = 1e-3  # constant in training
    monkeypatch.setattr("helpers.review.fast.predict_with_features", lambda model, x: (None, features.copy()))
    assert np.abs(review._features).max() <= 5


def test_it_reviews_the_images_of_the_set(review, experiment):
    assert np.array_equal(review.rows, experiment.data.rows("test"))
    assert np.array_equal(review.images["image_id"].iloc[review.rows], review.tested["image_id"])


def test_pixels_of_another_size_are_an_error(experiment):
    with pytest.raises(InputError, match=r"takes images of \(32, 32, 3\), but x has \(16, 16, 3\)"):
        Review(experiment, "network", x=experiment.data.load_pixels((16, 16, 3)))


def test_planted_leaks_are_found_and_priced(review):
    shown, table = review.check_leaks(), read(review, "leaks")
    copies = read(review, "copies")
    copies = copies.set_index(copies["second"].str.split("/").str[-1])
    found = copies[copies["sets"] == "two sets"]
    assert {"test_flint_1", "test_flint_2", "test_chalk_0"} <= set(found.index)
    assert copies.loc["test_chalk_0", "copy"] == "identical"
    assert copies.loc["test_flint_1", "copy"] == "mirrored or turned"
    assert copies["labels"].sum() == 1
    assert shown.index.tolist() == ["network", "network", "nearest training image"]
    assert shown["all"].str.len().max() <= 5
    assert (table["value"] - (table["all"] - table["clean"])).abs().max() < 2e-4


@pytest.mark.parametrize("tells_more", [True, False])
def test_features_that_tell_only_the_class_are_said_to(review, monkeypatch, tells_more):
    rng, said = np.random.default_rng(0), []
    review._features = np.ones((len(review.x), 20), "float32") + tells_more * rng.normal(size=(len(review.x), 20))
    monkeypatch.setattr(review.experiment, "show", lambda ax, name, text: said.append(text))
    review.check_leaks([])
    assert said[0].endswith("do not show a copy.") != tells_more


def test_kinds_of_copies_may_be_left_out(review):
    review.check_leaks(copies=["identical"])
    assert set(read(review, "copies")["copy"]) == {"identical"}


def test_without_a_leak_there_is_nothing_to_price(experiment):
    rows = experiment.data.rows("train")
    table = Review(experiment, "network", training=rows[rows > 20], resamples=20).check_leaks([])
    assert table.index.tolist() == ["network", "nearest training image"]
    assert "clean" not in table


def test_calibration_is_told_before_and_after(review, experiment):
    shown = review.check_calibration()
    table = read(review, "calibration").set_index("measure")
    assert {"before calibration", "calibration error", "coverage", "coverage_flint"} <= set(table.index)
    assert shown.loc["coverage", "value"].startswith(f"{table.loc['coverage', 'value']:.3f} (")
    before = scores.compute_calibration_error(experiment.predict("network", "test"), 50)
    assert table.loc["before calibration", "value"] == pytest.approx(before["value"], abs=1e-3)
    assert 0.6 <= table.loc["coverage", "value"] <= 1
    assert read(review, "abstaining")["answered"].is_monotonic_decreasing


def test_a_model_that_lives_by_a_shortcut_loses_it(experiment):
    review = Review(experiment, "brightness", resamples=50)
    review.check_shortcuts()
    table = read(review, "shortcuts").set_index("shortcut")
    assert {"brightness", "colour", "border", "file", "all shortcuts"} == set(table.index)  # all have one size
    assert table.loc["brightness", "value"] > 0.7
    reached = scores.compute_metrics(review.tested, 0).loc["roc_auc", "value"]
    assert table.loc["brightness", "left_value"] < reached - 0.1


def test_corruptions_that_were_trained_on_are_left_out(review):
    review.check_robustness(but=["photograph: brightness", "contrast"], background=128)
    curves = read(review, "robustness")
    assert not {"brightness", "contrast"} & set(curves["corruption"])
    assert {"shift", "zoom out", "rotation"} <= set(curves["corruption"])
    summary = read(review, "robustness_summary")
    assert summary.loc[0, "kept"] == pytest.approx(summary.loc[0, "corrupted"] / summary.loc[0, "clean"], abs=1e-3)


def test_views_of_square_images(review):
    assert review.check_views().index.tolist() == [1, 4, 8]


def test_subgroups_take_the_threshold(review, experiment):
    values = {"half": np.where(np.arange(len(experiment.data.images)) % 2, "odd", "even")}
    review.check_subgroups(values)
    table = read(review, "subgroups")
    assert set(table["subgroup"]) == {"all", "odd", "even"}
    assert table.query("subgroup == 'all'").set_index("metric")["images"].to_dict() == {
        "accuracy": 80,
        "sensitivity": 40,
        "specificity": 40,
    }
    review.threshold = 0.0
    review.check_subgroups(values)
    assert (read(review, "subgroups").query("metric == 'sensitivity'")["value"] == 1).all()


def test_errors_stand_beside_the_nearest_training_images(review, experiment):
    review.show_errors(5)
    table = read(review, "errors")
    assert table["confidence"].is_monotonic_decreasing
    trained = set(experiment.data.images["image_id"].iloc[experiment.data.rows("train")])
    assert set(table["nearest"]) <= trained


def test_doubtful_labels_contradict_the_model(review):
    review.find_doubtful_labels(5)
    table = read(review, "doubtful_labels")
    assert (table["y_true"] != table["suggested"]).all()


def test_the_evidence_is_measured_where_there_are_maps(review, experiment):
    review.strangers = {"noise": np.random.default_rng(0).integers(0, 256, (5, *SHAPE), "uint8")}
    middle = np.zeros((32, 32), bool)
    middle[8:24, 8:24] = True
    review.show_evidence(masks=lambda images: np.broadcast_to(middle, images.shape[:3]))
    table = read(review, "evidence").set_index("kind")
    assert table.index.tolist() == ["right", "wrong", "foreign"]
    assert (table["area"] == 0.25).all()
    assert "no convolution" in Review(experiment, "brightness").show_evidence().data


def test_the_choice_is_checked_among_all_models(review):
    review.check_choice("accuracy")
    table = read(review, "choice").set_index("model")
    assert table.index.tolist() == ["brightness", "network"]
    assert table["chosen"].sum() == pytest.approx(1)


def test_strangers_are_counted_by_kind(review, experiment):
    experiment.save_model("network")
    review.strangers = {"white": np.full((5, *SHAPE), 255, "uint8")}
    review.check_strangers()
    table = read(review, "refused").set_index("kind")
    assert table.loc["white", "refused"] == 1
    assert table["images"].tolist() == [80, 5]


def test_all_forms_predict_the_same(review):
    review.export_forms()
    table = read(review, "forms")
    assert {"keras", "onnx"} <= set(table["form"])
    assert table["largest_difference"].max() < 1e-3
    assert (review.experiment.folder / "models/quick/08_stones/network.onnx").exists()
