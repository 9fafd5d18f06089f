"""An experiment: from a folder of images to results, on tiny pictures of two colours."""

import dataclasses
import json
import os
import shutil
import time
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from keras import layers
from nbclient import NotebookClient
from PIL import Image

import helpers.experiment
from helpers import Experiment, leftovers, open_data_set, progress
from helpers.data.catalog import DataSet
from helpers.data.split import list_runs
from helpers.evaluation.baselines import fit_regression
from helpers.evaluation.calibration import fit_conformal
from helpers.evaluation.foreign import Familiar
from helpers.evaluation.marks import Unmarked
from helpers.evaluation.scores import compute_metrics
from helpers.files import InputError
from helpers.study import runner
from helpers.study.cnn import CNN_SETTINGS
from helpers.training import transfer
from helpers.training.fast import predict_probabilities
from helpers.training.fit import Recipe
from helpers.training.saving import read_about, read_arrays

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
SHAPE = (16, 16, 3)
RECORD = DataSet(
    name="sweets",
    title="Sweets",
    task="Is it mint or cherry?",
    class_names=("mint", "cherry", "lemon"),
    class_labels={"mint": "green mint", "cherry": "red cherry", "lemon": "yellow lemon"},
    layout="class_folders",
    key_file="train",
    files="images in train/{mint,cherry,lemon}/",
    handle="kaggle:nobody/sweets/versions/1",
    expected_counts={"train": 120},
    group_rule="photographs of one sweet",
    image_shape=SHAPE,
    allowed_augmentation="flips",
    citation="drawn",
    licence="CC0",
)
PROBABILITIES = ["p_green mint", "p_red cherry", "p_yellow lemon"]
COLORS = {"mint": (60, 160, 90), "cherry": (170, 60, 70), "lemon": (180, 170, 60)}
RECIPE = Recipe(epochs=6, batch_size=16, learning_rate=0.05)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for label, color in COLORS.items():
        place = folder / "sweets" / "train" / label
        place.mkdir(parents=True)
        for number in range(40):
            pixels = np.clip(np.array(color) + rng.normal(0, 45, SHAPE), 0, 255).astype("uint8")
            Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def environment(data_dir, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_DIR", str(data_dir))
        patch.setenv("CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("NOTEBOOK_PROGRESS", "off")
        patch.setenv("PRECISION", "float32")
        for name in ("DATA_SOURCE", "DATA_SET", "NOTEBOOK_MODE", "SEED", "DASK_SCHEDULER"):
            patch.delenv(name, raising=False)
        yield


def make_experiment(folder, split=True, checkpoints=None):
    experiment = Experiment("07_sweets", folder)
    data = open_data_set(RECORD, experiment)
    if split:
        data.split_images(validation=0.25, test=0.25)
    if checkpoints is not None:
        shutil.copytree(checkpoints, experiment._checkpoints, dirs_exist_ok=True)
    return experiment, data.load_pixels(SHAPE)


def build():
    inputs = keras.Input(SHAPE)
    maps = layers.Rescaling(1 / 255)(inputs)
    maps = layers.BatchNormalization(momentum=0.5)(layers.Conv2D(4, 3, use_bias=False)(maps))
    features = layers.GlobalAveragePooling2D()(layers.ReLU()(maps))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(features))


@pytest.fixture(scope="module")
def trained(environment, tmp_path_factory):
    """Train two models; the experiment, the pixels, and the checkpoints of both, so that others need not train them."""
    experiment, x = make_experiment(tmp_path_factory.mktemp("results"))
    experiment.fit("first", build, x, RECIPE)
    experiment.fit("second", build, x, RECIPE, seed=1, views=4)
    return experiment, x, shutil.copytree(experiment._checkpoints, tmp_path_factory.mktemp("trained") / "checkpoints")


@pytest.fixture(scope="module")
def fitted(trained):
    return trained[:2]


@pytest.fixture(scope="module")
def checkpoints(trained):
    return trained[2]


# From the first line to the results


def test_it_tells_what_it_is(fitted):
    experiment, _ = fitted
    assert repr(experiment).startswith("07_sweets: quick mode, seed 42, float32, ")
    shown = experiment.data._repr_markdown_()
    assert "**Sweets** (local)" in shown
    assert "120 images in 120 groups and 3 classes" in shown


@pytest.mark.parametrize(("mode", "place"), [("full", "07_sweets"), ("quick", "quick/07_sweets")])
def test_a_mode_that_is_given_is_that_of_all_that_follows(environment, tmp_path, monkeypatch, mode, place):
    monkeypatch.setenv("NOTEBOOK_MODE", "quick" if mode == "full" else "full")
    experiment = Experiment("07_sweets", tmp_path, mode=mode)
    open_data_set(RECORD, experiment)
    assert repr(experiment).startswith(f"07_sweets: {mode} mode")
    assert experiment.quick == experiment.report.settings.quick == experiment.data.settings.quick == (mode == "quick")
    assert experiment.report.place == Path(place)
    with pytest.raises(InputError, match="mode='fast': expected one of quick, full"):
        Experiment("07_sweets", tmp_path, mode="fast")


@pytest.mark.parametrize("shown", ["on", "off"])
def test_progress_is_shown_if_the_settings_say_so(environment, monkeypatch, shown):
    monkeypatch.setattr(progress, "_shown", None)
    monkeypatch.setenv("NOTEBOOK_PROGRESS", shown)
    Experiment("07_sweets")
    assert progress._shown == (shown == "on")


def test_the_whole_way_ends_in_results(fitted):
    experiment, _ = fitted
    table = experiment.choose("accuracy")
    assert table.index.tolist() == ["first", "second"]
    assert experiment.chosen == table["accuracy"].idxmax()
    assert set(experiment.calibrate()) == {"first", "second"}
    experiment.add_predictions("guess", "test", np.full((len(experiment.data.rows("test")), 3), 1 / 3))
    shown = experiment.score("test", metrics=["accuracy"], resamples=20)
    assert shown.index.tolist() == ["first", "second", "guess"]
    expected = compute_metrics(experiment.calibrated("first", "test"), 20)
    pd.testing.assert_frame_equal(experiment.scores["first"]["test"], expected)
    assert experiment.scores["first"]["test"].loc["accuracy", "value"] > 0.6
    difference = experiment.compare("first", "first", resamples=20)
    assert (difference[["value", "low", "high"]] == 0).all(axis=None)

    path = experiment.save_model("first", note="sour")
    assert path == experiment.folder / "models" / "quick" / "07_sweets" / "first.keras"
    folder = experiment.folder / experiment.save("by sweet", cost={"first": {"temperature": 2}})
    results = json.loads((folder / "results.json").read_text())
    assert list(results["results"]) == ["first", "second", "guess"]
    assert results["results"]["first"]["cost"]["epochs"] == 6
    assert results["results"]["first"]["cost"]["temperature"] == 2
    assert results["results"]["second"]["cost"]["input"] == "16x16x3"
    assert "epochs" not in results["results"]["guess"]["cost"]
    assert sum(entry["cost"]["chosen"] for entry in results["results"].values()) == 1
    histories = pd.read_csv(folder / "histories.csv")
    assert histories["model"].tolist() == ["first"] * 6 + ["second"] * 6
    assert histories["epoch"].tolist() == [1, 2, 3, 4, 5, 6] * 2
    costs = pd.read_csv(folder / "costs.csv").set_index("model")
    assert costs["epochs"].to_dict() == {"first": 6, "second": 6}
    assert (costs["parameters"] == experiment.models["first"].count_params()).all()
    assert pd.read_csv(folder / "problems.csv").empty
    assert list(experiment._checkpoints.iterdir()) == []  # what was finished is not needed any more


class Killed(Exception):
    """Stands for whatever ends a run before its time."""


def test_a_kill_while_results_are_saved_costs_no_training(checkpoints, tmp_path, monkeypatch):
    experiment, x = make_experiment(tmp_path, checkpoints=checkpoints)
    experiment.fit("first", build, x, RECIPE)
    experiment.fit("second", build, x, RECIPE, seed=1, views=4)
    experiment.score("test", resamples=5)
    folder, replace = experiment.report.folder, os.replace

    def kill_at(number):
        waiting = iter(range(number))

        def replace_or_die(*paths):
            if next(waiting, None) is None:
                raise Killed
            replace(*paths)

        monkeypatch.setattr(os, "replace", replace_or_die)
        try:
            experiment.save("by sweet")
        except Killed:
            return True
        return False

    killed = 0
    while kill_at(killed):
        killed += 1
        kept = sorted(path.name for path in experiment._checkpoints.iterdir())
        assert kept == ["first.npz", "second.npz"]
        assert not (folder / "results.json").exists()  # written last: who finds it finds all the rest
    assert killed >= 3
    assert {"results.json", "histories.csv", "costs.csv"} <= {path.name for path in folder.iterdir()}


def test_what_a_killed_run_has_left_is_removed_at_the_start_and_a_forgotten_training_too(
    environment, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("CACHE_DIR", str(tmp_path / "cache"))
    trainings = tmp_path / "cache" / "checkpoints" / "quick" / "07_sweets"
    for folder in (trainings, tmp_path / "models", tmp_path / "figures"):
        folder.mkdir(parents=True)
        with monkeypatch.context() as patch:
            patch.setattr(leftovers, "_read_start", lambda pid: 12345)  # of a process that is no more
            leftovers.name_unfinished(folder / "half.npz").write_bytes(bytes(10**6))
    for name, days in {"recent": 80, "forgotten": 100}.items():
        np.savez(trainings / f"{name}.npz", about="{}")
        os.utime(trainings / f"{name}.npz", (time.time() - days * 86_400,) * 2)
    Experiment("07_sweets", tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["recent.npz"]
    assert capsys.readouterr().out == "3 MB were removed that a run that was killed had left unfinished\n"


def test_what_is_not_ours_stays_beside_the_caches(environment, tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_DIR", str(tmp_path / "scratch"))
    others = [tmp_path / "scratch" / name for name in ("checkpoints/other/best.npz", "data/.notes-1a2b3c4d.txt")]
    for path in others:
        path.parent.mkdir(parents=True)
        with open(path, "wb") as file:
            np.savez(file, weights=[1.0])
        os.utime(path, (0, 0))
    Experiment("07_sweets", tmp_path)
    assert [path.exists() for path in others] == [True, True]


def test_another_run_gives_the_same_and_a_fit_repeated_too(fitted, tmp_path):
    experiment, _ = fitted
    again, x = make_experiment(tmp_path)
    again.fit("first", build, x, RECIPE)
    for _ in range(2):  # the second is not trained anew, as its history of the same seconds shows
        before = again.histories.get("first")
        model = again.fit("first", build, x, RECIPE)
        pd.testing.assert_frame_equal(again.histories["first"], before)
        for weight, expected in zip(model.get_weights(), experiment.models["first"].get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)
    other = again.fit("first", build, x, Recipe(epochs=1, batch_size=16))
    assert len(again.histories["first"]) == 1
    assert not np.array_equal(other.get_weights()[0], model.get_weights()[0])


def test_views_are_averaged(fitted):
    experiment, x = fitted
    rows = experiment.data.rows("validation")
    model = experiment.models["second"]
    views = [x[rows], x[rows][:, :, ::-1], x[rows][:, ::-1], x[rows][:, ::-1, ::-1]]
    expected = np.mean([model.predict(view, verbose=0) for view in views], axis=0)
    np.testing.assert_allclose(experiment.predict_probabilities("second", "validation"), expected, atol=1e-5)
    pd.testing.assert_frame_equal(experiment.predict("second", rows), experiment.predict("second", "validation"))


def test_a_set_of_altered_images_is_predicted_and_validated_on(fitted, tmp_path):
    experiment, x = make_experiment(tmp_path)
    rows = np.tile(experiment.data.rows("validation"), 2)
    experiment.add_set("inverted", rows, 255 - x[rows])
    experiment.fit("first", build, x, RECIPE, validation="inverted")
    y_prob = experiment.models["first"].predict(255 - x[rows], verbose=0)
    np.testing.assert_allclose(experiment.predict_probabilities("first", "inverted"), y_prob, atol=1e-5)
    table = experiment.predict("first", "inverted")
    assert table["image_id"].tolist() == experiment.data.images["image_id"].iloc[rows].tolist()
    with pytest.raises(InputError, match=r"no pixels of shape \(8, 8, 3\)"):
        experiment._select(x[:, :8, :8], "inverted")


def test_an_average_is_one_of_probabilities(fitted):
    experiment, _ = fitted
    experiment.average("both", ["first", "second"], "validation")
    expected = sum(experiment.calibrated(name, "validation")[PROBABILITIES] for name in ("first", "second")) / 2
    np.testing.assert_allclose(experiment.predictions["both", "validation"][PROBABILITIES], expected)
    table = experiment.collect("validation", names=["first", "both"])
    assert table["model"].value_counts().to_dict() == {"first": len(expected), "both": len(expected)}


def test_class_weights_are_undone_before_the_temperature(fitted, tmp_path):
    experiment, x = make_experiment(tmp_path)
    weights = np.array([1.0, 2.0, 4.0])
    experiment.fit("weighted", build, x, Recipe(epochs=1, batch_size=16, class_weights=weights))
    raw = experiment.predict("weighted", "validation")[PROBABILITIES].to_numpy()
    experiment.calibrate(undo_weights=True)
    undone = experiment.undo_weights("weighted", "validation")[PROBABILITIES].to_numpy()
    np.testing.assert_allclose(undone, raw / weights / (raw / weights).sum(axis=1, keepdims=True), rtol=1e-5)
    experiment.calibrate(undo_weights=False)
    assert experiment.undo_weights("weighted", "validation") is experiment.predict("weighted", "validation")


# What belongs to another model, set or split is forgotten


def test_another_training_under_the_name_forgets_what_was_made_from_the_first(checkpoints, tmp_path):
    experiment, x = make_experiment(tmp_path, checkpoints=checkpoints)
    for name, seed in (("first", None), ("second", 1)):
        experiment.fit(name, build, x, RECIPE, seed=seed)
    experiment.calibrate()
    experiment.choose("accuracy", among=["first"])
    experiment.average("both", ["first", "second"], "test")
    experiment.score("test", resamples=2)
    before = dict(experiment.temperatures), experiment.predictions["first", "test"]
    experiment.fit("first", build, x, RECIPE)  # the same again
    assert (experiment.temperatures, experiment.predictions["first", "test"]) == before
    assert experiment.chosen == "first"
    experiment.fit("first", build, x, Recipe(epochs=1, batch_size=16))
    assert set(experiment.temperatures) == set(experiment.scores) - {"both"} == {"second"}
    assert {name for name, _ in experiment.predictions} == {"second"}
    assert experiment.chosen is None
    assert len(experiment.histories["first"]) == 1


def test_another_split_or_other_altered_images_are_predicted_anew(checkpoints, tmp_path):
    experiment, x = make_experiment(tmp_path, checkpoints=checkpoints)
    experiment.fit("first", build, x, RECIPE)
    assert len(experiment.predict("first", "test")) == len(experiment.data.rows("test"))
    experiment.data.split_images(validation=0.3, test=0.4)
    table = experiment.predict("first", "test")
    rows = experiment.data.rows("test")
    assert table["image_id"].tolist() == experiment.data.images["image_id"].iloc[rows].tolist()
    experiment.add_set("altered", rows, 255 - x[rows])
    first = experiment.predict("first", "altered")
    experiment.add_set("altered", rows, x[rows])
    assert not np.array_equal(experiment.predict("first", "altered")["p_green mint"], first["p_green mint"])
    np.testing.assert_allclose(experiment.predict("first", "altered")["p_green mint"], table["p_green mint"], atol=1e-6)
    with pytest.raises(InputError, match=r"has 3 rows, but pixels of \[2\] images"):
        experiment.add_set("altered", rows[:3], x[:2])


def test_a_network_is_built_anew_under_a_name_of_its_own(fitted):
    experiment, x = fitted
    with pytest.raises(InputError, match="build gave a model that was trained before"):
        experiment.fit("third", lambda: experiment.models["first"], x, RECIPE)
    experiment._fits["a 1"] = experiment._fits["first"]
    with pytest.raises(InputError, match="a, 1: its results would be written over those of a 1"):
        experiment.fit("a, 1", build, x, RECIPE)
    del experiment._fits["a 1"]
    with pytest.raises(InputError, match="'guess' has no predictions of 'validation', and there is no model"):
        experiment.score("validation", names=["guess"])


def test_the_precision_is_that_of_the_training_and_stays_there(fitted, tmp_path):
    experiment, x = make_experiment(tmp_path)
    experiment.fit("first", build, x, Recipe(epochs=1, batch_size=16), precision="mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"
    assert experiment.measure_cost("first")["precision"] == "mixed_bfloat16"
    experiment.fit("first, seed 43", build, x, Recipe(epochs=2, batch_size=16), seed=43)
    assert experiment.measure_cost("first")["epochs"] == 1  # another seed is another model


def test_fewer_folds_leave_no_older_ones(fitted, tmp_path):
    experiment, x = make_experiment(tmp_path, split=False)
    runs = list_runs(experiment.data.images, 2, validation=0.25)
    for folds in (["fold 1", "fold 2"], ["fold 1"]):
        wanted = {fold: runs[fold] for fold in folds}
        experiment.cross_validate("cnn", lambda run: build(), x, Recipe(epochs=1, batch_size=16), wanted)
        assert list(experiment.histories) == [f"cnn, {fold}" for fold in folds]
    with pytest.raises(InputError, match="no model to choose from"):
        experiment.choose()  # each fold has a validation set of its own


# Features, folds, studies


def test_a_classifier_on_features_of_several_views_is_joined_with_what_computes_them(fitted, tmp_path):
    experiment, x = make_experiment(tmp_path)
    inputs = keras.Input(SHAPE, name="pixels")
    extractor = keras.Model(inputs, layers.GlobalAveragePooling2D(name="features")(layers.Rescaling(1 / 64)(inputs)))
    features = transfer.compute_features(extractor, x, views=4).reshape(4, len(x), -1)
    train = np.concatenate(features[:, experiment.data.rows("train")])
    head = {"build": lambda: transfer.build_head(train, 3), "x": features, "recipe": RECIPE, "extractor": extractor}
    joined = experiment.fit("frozen", **head)
    assert joined.input_shape == (None, *SHAPE)
    assert [layer.trainable for layer in joined.layers if layer.weights] == [True]
    y_prob = joined.predict(x[experiment.data.rows("test")], verbose=0)
    np.testing.assert_allclose(experiment.predict_probabilities("frozen", "test"), y_prob, atol=1e-5)
    experiment.fit("frozen", **head, predict_from=x, views=4)
    np.testing.assert_allclose(experiment.predict_probabilities("frozen", "test"), y_prob, atol=1e-5)


def test_each_fold_is_predicted_by_a_network_that_did_not_see_it(fitted, tmp_path):
    experiment, x = make_experiment(tmp_path, split=False)
    runs = list_runs(experiment.data.images, 2, validation=0.25)
    built = []
    y_prob = experiment.cross_validate("cnn", lambda run: built.append(run) or build(), x, RECIPE, runs)
    assert built == list(runs) == ["fold 1", "fold 2"]
    for run, rows in runs.items():
        assert not set(rows["train"]) & (set(rows["test"]) | set(rows["validation"]))
        expected = experiment.models[f"cnn, {run}"].predict(x[rows["test"]], verbose=0)
        np.testing.assert_allclose(y_prob[rows["test"]], expected, atol=1e-5)
    assert experiment.measure_cost("cnn")["epochs"] == 12


def test_refits_predict_the_others_and_are_averaged(fitted, stages, tmp_path):
    experiment, x = make_experiment(tmp_path, split=False)
    images, others = experiment.data.images.iloc[:90], np.arange(100, 110)
    runs = list_runs(images, 2, refits=2, others=others)
    recipes = []
    y_prob = experiment.cross_validate(
        "cnn", lambda run: build(), x, lambda run: recipes.append(run) or Recipe(1, 16, monitor="last"), runs
    )
    assert recipes == list(runs) == ["fold 1", "fold 2", "refit 1", "refit 2"]
    assert [rows["seed"] for rows in runs.values()] == [42, 42, 43, 44]
    told = ["fold 1 of 2, seed 42", "fold 2 of 2, seed 42", "refit 1 of 2, seed 43", "refit 2 of 2, seed 44"]
    trainings = [stage.label for stage in stages if stage.doing.startswith("epoch 1 of 1")]
    assert trainings == [f"cnn, {run}" for run in told]
    refits = [experiment.models[f"cnn, refit {number}"].predict(x[others], verbose=0) for number in (1, 2)]
    assert not np.array_equal(*refits)
    np.testing.assert_allclose(y_prob[others], np.mean(refits, axis=0), atol=1e-5)
    assert np.isnan(y_prob[110:]).all()


def test_a_study_saves_its_table(environment, tmp_path, monkeypatch):
    experiment, x = make_experiment(tmp_path)
    monkeypatch.setattr(runner, "effective_n_jobs", lambda n_jobs: 1)  # processes would start TensorFlow once more
    base = CNN_SETTINGS | {"blocks": 1, "convolutions": 1, "filters": 4, "epochs": 1, "batch_size": 16}
    factors = {"depth": {"1 block": {}, "2 blocks": {"blocks": 2}}}
    table = experiment.run_study(x, base, factors, seeds=[1])
    assert table["level"].tolist() == ["1 block", "2 blocks"]
    assert table["error"].tolist() == ["", ""]
    assert table["test_accuracy"].between(0, 1).all()
    assert (experiment.report.folder / "study.csv").is_file()


# Pretrained networks

NARROW, FILE = "mobilenet_v2_0.35", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"


def enlarge(pixels):
    return layers.Resizing(32, 32, interpolation="nearest")(pixels)


@pytest.fixture
def experiment(environment, tmp_path, monkeypatch):
    """Work with the images, without a network to download from."""

    def fail(*_):
        raise OSError("no network")

    monkeypatch.setattr(transfer.Base, "download", fail)
    return make_experiment(tmp_path)[0]


@pytest.fixture
def pixels(experiment):
    return experiment.data.load_pixels(SHAPE)


@pytest.fixture(scope="module")
def narrow_network(tmp_path_factory):
    """Make a network with random weights, and its file."""
    path = tmp_path_factory.mktemp("weights") / FILE
    network = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, include_top=False, weights=None)
    network.save(path)
    return network, path


@pytest.fixture
def weights_file(data_dir, narrow_network):
    """Put the network with random weights where those of ImageNet are looked for."""
    network, made = narrow_network
    path = data_dir / "weights" / FILE
    path.parent.mkdir(exist_ok=True)
    shutil.copy(made, path)
    yield network
    path.unlink()


@pytest.fixture(scope="module")
def kept_features():
    """Compute the features of a network once for all tests that ask for the same rows."""
    return {}


@pytest.mark.parametrize("spoiled", ["efficientnet_lite0", NARROW])
def test_the_network_whose_features_suit_the_images_is_chosen(
    experiment, pixels, weights_file, kept_features, monkeypatch, spoiled
):
    computed, compute_features = {}, transfer.compute_features

    def compute(extractor, x, rows):
        key = extractor.name, rows.tobytes()
        if key not in kept_features:
            kept_features[key] = compute_features(extractor, x, rows)
        features = kept_features[key]
        features = 0 * features if extractor.name == spoiled.replace(".", "_") else features
        computed[extractor.name] = features, rows
        return features

    monkeypatch.setattr(transfer, "compute_features", compute)
    names = ["efficientnet_lite0", NARROW]
    table = experiment.choose_base([*names, "vgg16"], pixels, prepare=enlarge, most=40)
    assert table.index.tolist() == [*names, "vgg16"]
    assert table.columns.tolist() == ["ROC AUC", "images per second", "weights"]
    assert table.loc[spoiled, "ROC AUC"] == 0.5
    (other,) = set(names) - {spoiled}
    assert experiment.base == other == table["ROC AUC"].astype(float).idxmax()
    assert table.loc["vgg16", ["ROC AUC", "images per second"]].isna().all()
    assert "could not be downloaded (no network)" in table.loc["vgg16", "weights"]
    assert f"ImageNet weights from `weights/{FILE}`" in table.loc[NARROW, "weights"]
    assert (table.loc[names, "images per second"] > 0).all()

    features, rows = computed[other.replace(".", "_")]
    assert set(rows[:40]) < set(experiment.data.rows("train"))
    np.testing.assert_array_equal(rows[40:], experiment.data.rows("validation"))
    regression = fit_regression(features[:40], experiment.data.encode_labels(rows[:40]))
    experiment.add_predictions("by hand", "validation", regression.predict_proba(features[40:]))
    expected = compute_metrics(experiment.predictions["by hand", "validation"], 0).loc["roc_auc", "value"]
    assert table.loc[other, "ROC AUC"] == expected > 0.6


def test_the_chosen_network_computes_features_in_float32(experiment, pixels, weights_file):
    experiment.choose_base([NARROW], pixels)
    keras.config.set_dtype_policy("mixed_bfloat16")
    extractor = experiment.build_extractor(SHAPE, prepare=enlarge)
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    assert {layer.compute_dtype for layer in extractor.layers} == {"float32"}
    maps = weights_file(pixels.repeat(2, axis=1).repeat(2, axis=2) / 127.5 - 1, training=False)
    np.testing.assert_allclose(extractor(pixels), np.mean(maps, axis=(1, 2)), rtol=1e-3, atol=1e-4)
    cut = experiment.build_extractor(SHAPE, "block_2_add", enlarge)
    assert cut.layers[-2].name == "block_2_add"
    with pytest.raises(ZeroDivisionError):
        experiment.build_extractor(SHAPE, prepare=lambda pixels: 1 // 0)
    assert keras.config.dtype_policy().name == "mixed_bfloat16"


def test_a_network_that_is_left_alone_is_taken_without_computing(experiment, pixels, monkeypatch):
    monkeypatch.setattr(transfer, "compute_features", lambda *_: pytest.fail("features were computed"))
    for names in (["efficientnet_lite0"], [NARROW, "efficientnet_lite0"]):
        table = experiment.choose_base(names, pixels)
        assert experiment.base == "efficientnet_lite0"
        assert table.index.tolist() == names
        assert table.columns.tolist() == ["weights"]
    assert "no weights here" in table.loc[NARROW, "weights"]
    assert table.loc["efficientnet_lite0", "weights"].startswith("EfficientNet-Lite0 (Tan and Le 2019): ImageNet")


def test_nothing_is_downloaded_for_a_sample(experiment, pixels, weights_file):
    source = dataclasses.replace(experiment.data.source, kind="sample")
    experiment.data = dataclasses.replace(experiment.data, source=source)
    table = experiment.choose_base([NARROW, "efficientnet_lite0"], pixels)
    assert "not looked for on the sample" in table.loc[NARROW, "weights"]
    assert experiment.base == "efficientnet_lite0"


def test_without_weights_there_is_no_network_and_another_data_set_has_none_yet(experiment, pixels):
    def need_choice():
        with pytest.raises(InputError, match="No pretrained network is chosen: call choose_base first"):
            experiment.build_extractor(SHAPE)

    need_choice()
    for end in (lambda: experiment.choose_base([NARROW, "vgg16"], pixels), None):
        experiment.choose_base(["efficientnet_lite0"], pixels)
        if end:
            with pytest.raises(InputError, match=r"MobileNetV2 .* no weights here.* VGG16 .* no weights here"):
                end()
        else:
            open_data_set(RECORD, experiment)
        assert experiment.base is None
        need_choice()


def test_another_data_set_has_no_reviews_yet(experiment):
    experiment.reviews["first"] = "of the data set before"
    open_data_set(RECORD, experiment)
    assert experiment.reviews == {}


# What is shown, and the full run


@pytest.fixture
def displayed(monkeypatch):
    items = []
    monkeypatch.setattr(helpers.experiment, "display", lambda *shown: items.extend(shown))
    return items


def test_a_figure_is_exported_shown_small_and_followed_by_what_it_says(experiment, displayed):
    figure, ax = plt.subplots()
    ax.plot([0, 1], [0, 1])
    experiment.show(ax, "line", "The line **rises**.")
    picture, takeaway = displayed
    assert isinstance(picture, Unmarked)
    assert picture.content.startswith(b"\x89PNG")
    assert repr(picture) == "<figure line>"
    assert takeaway.data == "The line **rises**."
    assert (experiment.report.folder / "line.png").is_file()
    assert [text.get_text() for text in figure.texts] == ["quick run"]
    assert not plt.fignum_exists(figure.number)
    displayed.clear()
    figure = plt.figure()
    experiment.show(figure, "photographs", shows_images=True)
    assert len(displayed) == 1
    assert (experiment.report.folder / "images" / "photographs.png").is_file()
    assert plt.get_fignums() == []


FOUND = {
    "accuracy": {"value": 0.8, "low": 0.7, "high": 0.9, "groups": 100},
    "majority_rate": {"value": 0.5, "low": None, "high": None, "groups": 100},
}


@pytest.fixture
def with_full_run(experiment):
    """Put a full run beside the experiment, which has scored a guess and what is right for every other image."""
    folder = experiment.folder / "figures" / "07_sweets"
    folder.mkdir(parents=True)
    worse = FOUND | {"accuracy": FOUND["accuracy"] | {"value": 0.2, "low": 0.1, "high": 0.3}}
    results = {"guess": {"test": FOUND, "five_folds": FOUND}, "half_right": {"test": worse, "five_folds": FOUND}}
    about = {"data": {"images": 5000}, "cores": 2, "cpu": "C", "peak_memory_mb": 1000}
    (folder / "results.json").write_text(json.dumps(about | {"results": results}))
    for part, rows in (("test", experiment.data.rows("test")), ("five folds", np.arange(0, 120, 5))):
        right = experiment.data.encode_labels(rows)
        experiment.add_predictions("guess", part, np.tile([0.4, 0.3, 0.3], (len(rows), 1)), rows)
        experiment.add_predictions("half right", part, np.where(np.arange(len(rows))[:, None] % 2, right, 1 / 3), rows)
    experiment.score("test", "five folds", resamples=20)
    return experiment


def test_this_run_stands_beside_the_full_run(with_full_run):
    experiment = with_full_run
    assert experiment.full_run.notebook == "07_sweets"
    assert experiment.full_run.results["data"] == {"images": 5000}
    table = experiment.compare_with_full_run("accuracy").content
    assert table.index.tolist() == ["guess", "half right"]
    assert table.columns.tolist() == [("accuracy", "quick run"), ("accuracy", "full run")]
    assert table["accuracy", "full run"].tolist() == ["80.00 % (70.00 to 90.00)", "20.00 % (10.00 to 30.00)"]
    value = experiment.scores["half right"]["test"].loc["accuracy", "value"]
    assert table.loc["half right", ("accuracy", "quick run")].startswith(f"{100 * value:.2f} % (")
    table = experiment.compare_with_full_run("accuracy", names=["guess"], part="five folds").content
    assert table["accuracy"].loc["guess"].str.startswith(("33", "80")).all()


def test_it_is_told_which_run_to_believe_and_why(with_full_run):
    experiment = with_full_run
    n_tested = len(experiment.data.rows("test"))
    (line,) = experiment.compare_directions(("guess", "half right")).content.splitlines()
    assert "(quick run), +60.0 points in the full run: **the directions differ**; each run speaks of its own" in line
    line = experiment.compare_directions(("half right", "majority class"), part="five folds").content
    assert "points (quick run), +30.0 points in the full run" in line
    assert line.endswith("the same direction.")
    source = dataclasses.replace(experiment.data.source, kind="sample")
    experiment.data, experiment.report.is_sample = dataclasses.replace(experiment.data, source=source), True
    line = experiment.compare_directions(("guess", "half right")).content
    assert line.endswith(f"believe the full run**, because this run tested {n_tested:,} images of the drawn sample.")
    line = experiment.compare_directions(("half right", "guess"), part="five folds").content
    assert line.endswith("because this run tested 24 images of the drawn sample.")


def test_the_full_run_is_that_of_the_edition(experiment, tmp_path):
    assert Experiment("07_sweets", tmp_path).full_run.results is None  # before a data set is open
    open_data_set(dataclasses.replace(RECORD, edition="small"), experiment)
    assert experiment.full_run.notebook == "07_sweets_small"


CELLS = (
    """
import os
import sys
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown
from helpers import Experiment, open_data_set, progress
table = pd.DataFrame({"count": [1, 2]})
display(table, Markdown("A text."))""",
    """
os.environ["DATA_SOURCE"] = "sample"
experiment = Experiment("01_mnist", FOLDER)
data = open_data_set("mnist", experiment)
display(table, Markdown("A text."), experiment.full_run, data)""",
    """
figure, ax = plt.subplots()
experiment.show(ax, "empty", "It is **empty**.")""",
    """
os.environ["DATA_SOURCE"] = "local"
sys.path.insert(0, TESTS)
from test_experiment import RECORD
experiment = Experiment("07_sweets", FOLDER)
open_data_set(RECORD, experiment)
display(table, Markdown("A text."))""",
    "raise KeyboardInterrupt",
)


@pytest.fixture(scope="module")
def executed(environment, tmp_path_factory):
    """Execute cells in a notebook; the outputs of each."""
    folders = str(tmp_path_factory.mktemp("notebook")), str(Path(__file__).parent)
    cells = [nbformat.v4.new_code_cell(cell) for cell in (f"FOLDER, TESTS = {folders}", *CELLS)]
    NotebookClient(nbformat.v4.new_notebook(cells=cells), kernel_name="python3", allow_errors=True).execute()
    return [cell.outputs for cell in cells[1:]]


def test_a_notebook_marks_what_it_shows_by_the_data_set_that_is_open(executed):
    shown = [[output["data"] for output in outputs] for outputs in executed[:-1]]
    plain_table, plain_text = shown[0]
    assert plain_table["text/html"].startswith("<div>")
    assert plain_text["text/markdown"] == "A text."
    for cell, mark in ((1, "sample of 8 × 8 digits"), (3, "quick run")):
        table, text = shown[cell][:2]
        assert table["text/html"] == f"<small><em>{mark}</em></small>{plain_table['text/html']}"
        assert text["text/markdown"] == f"*{mark}:* A text."
    assert shown[1][2]["text/markdown"].startswith("No full run of `01_mnist` is kept here")
    assert shown[1][3]["text/markdown"].startswith("**MNIST")  # says itself what it is
    picture, takeaway = shown[2]
    assert (picture["text/plain"], set(picture)) == ("<figure empty>", {"text/plain", "image/png"})
    assert takeaway["text/markdown"] == "*sample of 8 × 8 digits:* It is **empty**."


# Bad input


def test_models_are_chosen_by_what_is_better_when_it_is_higher(fitted):
    experiment, _ = fitted
    before = experiment.chosen
    for metric in ("expected_calibration_error", "area"):
        with pytest.raises(InputError, match=f"metric='{metric}': expected one of accuracy, balanced_accuracy"):
            experiment.choose(metric)
    assert experiment.chosen == before


def test_what_is_not_there_is_told(fitted, tmp_path):
    experiment, x = fitted
    with pytest.raises(InputError, match=r"There is no model 'third'. Fitted: first, second"):
        experiment.predict("third", "test")
    with pytest.raises(InputError, match=r"no set 'holdout': there are test, train, validation"):
        experiment.fit("first", build, x, RECIPE, validation="holdout")
    new = Experiment("07_sweets", tmp_path)
    for call in (lambda: new.fit("a", build, x, RECIPE), lambda: new.predict("a"), lambda: new.prior):
        with pytest.raises(InputError, match=r"No data set is open: call open_data_set|There is no model 'a'"):
            call()
    with pytest.raises(InputError, match=r"No data set is called 'sweets'. Known: mnist, ham10000"):
        open_data_set("sweets", new)


def test_nothing_can_be_scored_chosen_or_saved_before_a_fit(environment, tmp_path):
    experiment, x = make_experiment(tmp_path, split=False)
    with pytest.raises(InputError, match="nothing to score: call fit first"):
        experiment.score("test")
    with pytest.raises(InputError, match="no model to choose from: call fit first"):
        experiment.choose()
    with pytest.raises(InputError, match="no scores to save: call score first"):
        experiment.save("none")
    with pytest.raises(InputError, match=r"no set 'train': there are none\. Call split_images"):
        experiment.fit("first", build, x, RECIPE)


def test_what_is_no_function_no_metric_or_no_size_is_refused(fitted):
    experiment, x = fitted
    with pytest.raises(InputError, match="third: expected a function that builds a fresh model, got the model first"):
        experiment.fit("third", experiment.models["first"], x, RECIPE)
    with pytest.raises(InputError, match=r"No such metric: acuracy. Known: accuracy, balanced_accuracy"):
        experiment.score("validation", names="first", metrics=["acuracy"], resamples=2)
    with pytest.raises(InputError, match="no model 'frist'"):
        experiment.plot_history("frist")
    with pytest.raises(TypeError, match="view"):
        experiment.fit("third", build, x, RECIPE, view=4)
    for shape in ((16, 16), (16, 16, 2), (0, 16, 3)):
        with pytest.raises(
            ValueError, match=r"expected height, width and channels, which are 1 \(grey\) or 3 \(colour\)"
        ):
            experiment.data.load_pixels(shape)


def test_an_interrupt_shows_one_line_in_a_notebook(executed):
    (error,) = executed[-1]
    assert error.output_type == "error"
    assert error.traceback == ["KeyboardInterrupt: Run the cell again. What was finished before is kept."]


def test_a_model_without_an_output_for_each_class_is_refused(fitted):
    experiment, x = fitted

    def build_wrong():
        inputs = keras.Input(SHAPE)
        return keras.Model(inputs, layers.Dense(2, activation="softmax")(layers.Flatten()(inputs)))

    with pytest.raises(
        InputError, match=r"two classes: .* shape \(2,\); expected \(3,\), one for each of the classes green mint"
    ):
        experiment.fit("two classes", build_wrong, x, RECIPE)
    assert "two classes" not in experiment.models


# Images unlike those of training


@pytest.fixture
def saved(fitted):
    experiment, x = fitted
    return experiment, x, experiment.save_model("second")


def test_a_saved_model_tells_foreign_images_from_those_of_the_data_set(saved, capsys):
    experiment, x, path = saved
    rows = experiment.data.rows("test")
    strangers = experiment.gather_strangers(SHAPE, count=12) | {"inverted": 255 - x[rows]}
    assert list(strangers) == ["blank", "noise", "document", "inverted"], "no other data set lies in DATA_DIR"
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told if " is left out: " in line] == [
        *("mnist", "ham10000", "chest-xray", "melanoma-isic", "plants", "leukemia")
    ]
    table = experiment.measure_distances("second", strangers)
    assert table["kind"].unique().tolist() == ["test", *strangers]
    foreign_share = table.groupby("kind")["foreign"].mean()
    assert foreign_share["test"] < 0.2
    assert foreign_share.drop("test").min() > 0.9
    assert ((table["distance"] > 1) == table["foreign"]).all()
    trained_on = experiment.data.images["image_id"].iloc[experiment.data.rows("train")]
    assert set(table["nearest"]) <= set(trained_on)

    familiar = Familiar.from_arrays(read_arrays(path))
    distance, nearest = familiar.compare(*experiment._describe(experiment.models["second"], x, rows))
    known = table[table["kind"] == "test"]
    np.testing.assert_array_equal(distance, known["distance"])
    np.testing.assert_array_equal(nearest, known["nearest"])
    about = read_about(path)
    assert (about["background"], about["may_be_inverted"]) == (255, False)


def test_a_saved_model_knows_its_data_set_and_has_conformal_sets_from_held_out_images(saved):
    experiment, x, path = saved
    about = read_about(path)
    assert about["data_set"] == experiment.data.record.name
    rows = experiment.data.rows("validation")
    predicted = experiment._tabulate(experiment.predict_probabilities("second", rows), rows)
    assert about["conformal"] == pytest.approx(fit_conformal(predicted))
    own = experiment.save_model("second", conformal=dict.fromkeys(experiment.data.class_names, 0.5))
    assert set(read_about(own)["conformal"].values()) == {0.5}
    eight = read_about(experiment.save_model("second", views=4))["conformal"]
    predicted = experiment._tabulate(predict_probabilities(experiment.models["second"], x, rows, 4), rows)
    assert eight == pytest.approx(fit_conformal(predicted))


def test_the_limit_comes_from_validation_images(saved):
    experiment, _, _ = saved
    validation = experiment.measure_distances("second", {}, "validation")
    assert validation["distance"].max() <= 1.001, "30 images: not one may be refused"
    by_rows = experiment.measure_distances("second", {}, experiment.data.rows("validation"))
    assert by_rows["kind"].unique().tolist() == ["test"]
    np.testing.assert_array_equal(by_rows["distance"], validation["distance"])


def test_another_model_is_saved_with_the_rows_that_it_was_trained_on(fitted):
    experiment, x = fitted
    rows = np.arange(0, 120, 3)
    experiment.save_model("copy", experiment.models["first"], x, rows, np.arange(1, 120, 3))
    table = experiment.measure_distances("copy", {}, "train")
    assert set(table["nearest"]) <= set(experiment.data.images["image_id"].iloc[rows])
    with pytest.raises(InputError, match=r"copy: give pixels=\.\.\., of shape \(16, 16, 3\), a row for each image"):
        experiment.save_model("copy", experiment.models["first"], x[:64])


def test_distances_need_a_saved_model(environment, tmp_path):
    experiment, _ = make_experiment(tmp_path)
    with pytest.raises(InputError, match="'first' is not saved: call save_model first"):
        experiment.measure_distances("first", {})


def test_a_model_that_does_not_come_back_as_it_was_is_told(fitted, monkeypatch):
    experiment, _ = fitted
    before = {path: path.read_bytes() for path in experiment.folder.rglob("first.*")}
    monkeypatch.setattr("helpers.training.saving.load_model", lambda path: experiment.models["second"])
    with pytest.raises(
        RuntimeError, match=r"first\.keras: loaded again, the model predicts otherwise\. It was not saved"
    ):
        experiment.save_model("first")
    assert {path: path.read_bytes() for path in experiment.folder.rglob("first.*")} == before
