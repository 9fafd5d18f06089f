"""Trainings side by side: `fit_model` finds each finished, and they are those that it would have done itself."""

import keras
import numpy as np
import pytest

from helpers.files import Interrupted
from helpers.study import folds, runner
from helpers.training import fast, fit
from helpers.training.augment import ImageDataGenerator
from helpers.training.fit import Recipe, fit_model, is_finished
from helpers.training.networks import build_cnn

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
PIXELS = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 1)).astype("uint8")
LABELS = np.eye(2, dtype="float32")[np.arange(48) % 2]
OTHER = PIXELS[::-1].copy()


def shift(brightness):
    return lambda images, rng: images + brightness  # no function of a module, as in a notebook


RECIPES = {"first": Recipe(2, 8, augment=ImageDataGenerator(rotation_range=20)), "second": Recipe(1, 8)}
RECIPES["third"] = Recipe(1, 8, augment=shift(3))


def build(seed, filters=4):
    fast.set_seed(seed)
    return build_cnn((8, 8, 1), 2, ([127.0], [74.0]), filters=((filters,),))


def prepare(folder, **changes):
    """Prepare three trainings: the arguments of `fit_model`."""
    rows = np.arange(32)
    return {
        name: {
            "model": build(seed),
            "training": (PIXELS, LABELS[rows], rows),
            "validation": (OTHER if name == "second" else PIXELS, LABELS[32:], np.arange(32, 48)),
            "recipe": recipe,
            "seed": seed,
            "checkpoint": folder / "checkpoints" / f"{name}.npz",
        }
        | changes
        for seed, (name, recipe) in enumerate(RECIPES.items())
    }


@pytest.fixture
def here(monkeypatch):
    """Train in this process, on a machine of two cores: a list of what was trained."""
    trained = []

    def run(train, trials, folder, arrays, n_jobs, threads):
        assert (n_jobs, threads) == (2, 1)
        for key, trial in trials.items():
            trained.append(key)
            yield key, runner._run_trial(trial, train, *arrays)

    monkeypatch.setattr(folds, "run_in_processes", run)
    monkeypatch.setattr(folds, "count_workers", lambda: 2)
    return trained


def test_trainings_in_processes_are_found_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(folds, "count_workers", lambda: 2)
    trainings = prepare(tmp_path)
    folds.fit_side_by_side("folds", trainings)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "first.npz",
        "second.npz",
        "third.npz",
    ]
    monkeypatch.setattr(keras.Model, "fit", lambda *arguments, **options: pytest.fail("trained again"))
    before = trainings["first"]["model"].get_weights()
    for name, about in prepare(tmp_path).items():
        assert len(fit_model(**about)) == RECIPES[name].epochs
    for weights in zip(before, trainings["first"]["model"].get_weights(), strict=True):
        np.testing.assert_array_equal(*weights)  # it was trained elsewhere


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_training_elsewhere_is_the_one_here(tmp_path, here, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        folds.fit_side_by_side("folds", prepare(tmp_path))
        assert here == ["first", "second", "third"]
        keras.config.set_dtype_policy(policy)  # which a training in a process of its own leaves to the next one
        for (name, found), expected in zip(prepare(tmp_path).items(), prepare(tmp_path).values(), strict=True):
            assert is_finished(**found)
            histories = [fit_model(**about) for about in (found, expected | {"checkpoint": None})]
            np.testing.assert_array_equal(*(history["val_loss"] for history in histories), err_msg=name)
            for weights in zip(found["model"].get_weights(), expected["model"].get_weights(), strict=True):
                np.testing.assert_array_equal(*weights, err_msg=name)
    finally:
        keras.config.set_dtype_policy(before)


def test_what_is_finished_is_not_trained_again(tmp_path, here):
    trainings = prepare(tmp_path)
    folds.fit_side_by_side("folds", trainings)
    here.clear()
    folds.fit_side_by_side("folds", trainings)
    assert here == []
    trainings["second"]["seed"] = 7
    folds.fit_side_by_side("folds", trainings)
    assert here == ["second"]


def test_what_is_not_finished_goes_on(tmp_path, here, monkeypatch):
    save = fit._Recorder._save

    def save_and_stop(recorder, **lists):
        save(recorder, **lists)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit._Recorder, "_save", save_and_stop)
        with pytest.raises(Interrupted):
            fit_model(**prepare(tmp_path)["first"])
    trainings = prepare(tmp_path)
    assert not is_finished(**trainings["first"])
    folds.fit_side_by_side("folds", trainings)
    assert here == ["first", "second", "third"]
    assert is_finished(**trainings["first"])


@pytest.mark.parametrize("reason", ["one core", "cluster", "GPU"])
def test_trainings_are_left_to_this_process(tmp_path, here, monkeypatch, reason):
    if reason == "one core":
        monkeypatch.setattr(folds, "count_workers", lambda: 1)
    elif reason == "cluster":
        monkeypatch.setattr(folds, "uses_cluster", lambda: True)
    else:
        monkeypatch.setattr(folds.tf.config, "list_physical_devices", lambda kind: [f"{kind}:0"])
    folds.fit_side_by_side("folds", prepare(tmp_path))
    assert here == []


def test_an_error_is_that_of_the_training_itself(tmp_path, here):
    trainings = prepare(tmp_path, recipe=Recipe(1, 64))
    folds.fit_side_by_side("folds", trainings)
    with pytest.raises(ValueError, match="at least 64 are needed"):
        fit_model(**trainings["first"])


def test_progress_is_that_of_all(tmp_path, here, stages):
    folds.fit_side_by_side("cnn", prepare(tmp_path))
    assert [(stage.label, stage.total, stage.done) for stage in stages[:1]] == [("cnn", 3, 3)]


@pytest.mark.parametrize(("cores", "limits"), [(3, (3, 1)), (4, (4, 1)), (16, (3, 5))])
def test_trainings_share_the_cores(tmp_path, here, monkeypatch, cores, limits):
    given = []
    monkeypatch.setattr(folds, "run_in_processes", lambda *arguments: given.append(arguments[-2:]) or iter_nothing())
    monkeypatch.setattr(folds, "count_workers", lambda: cores)
    folds.fit_side_by_side("folds", prepare(tmp_path))
    monkeypatch.setattr(folds, "is_finished", lambda seed, **about: seed != 1)
    folds.fit_side_by_side("folds", prepare(tmp_path))
    assert given == [limits, limits]  # the same for a training that was left over


def iter_nothing():
    yield from ()
