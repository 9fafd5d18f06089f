"""A whole run as small as can be, to be killed: ``python -m benchmarks.torture.whole FOLDER [--short]``.

Results go to ``FOLDER/figures`` and ``FOLDER/models``, all caches to ``FOLDER/cache``. Each stage begins with a line.
The short form trains two networks on digits, and does little else.
"""

import argparse
import os
from functools import partial
from pathlib import Path


def run(folder, short=False):
    """Run all that a notebook does, on a part of a sample, with two epochs."""
    os.environ |= {"CACHE_DIR": str(folder / "cache"), "DATA_SOURCE": "sample", "NOTEBOOK_MODE": "quick"}
    _begin("start")
    from helpers import Experiment, Review, open_data_set  # here only: the folders are told before
    from helpers.data.preprocess import compute_statistics
    from helpers.evaluation import plots
    from helpers.study.cnn import CNN_SETTINGS
    from helpers.training.augment import ImageDataGenerator
    from helpers.training.fit import Recipe
    from helpers.training.networks import build_cnn
    from helpers.training.transfer import build_head, compute_features

    experiment = Experiment("torture", folder)
    _begin("data")
    data = open_data_set("mnist" if short else "melanoma", experiment, most=400, limit_by=None)
    data.split_images(validation=0.2, test=0.3)
    x = data.load_pixels((28, 28, 1) if short else (64, 64, 3))
    n_classes, statistics = len(data.class_names), compute_statistics(x, data.rows("train"))
    build = partial(build_cnn, x.shape[1:], n_classes, statistics, filters=((16,), (32,)))
    for name, settings in {"first": {"horizontal_flip": True}, "second": {"rotation_range": 180}}.items():
        _begin(f"training {name}")
        experiment.fit(name, build, x, Recipe(2, 32, augment=ImageDataGenerator(**settings)))
    if short:
        _begin("results")
        experiment.score("test", resamples=50)
        experiment.save_model("second")
        experiment.save("by group")
        return
    _begin("features")
    experiment.choose_base(["efficientnet_lite0"], x)
    extractor = experiment.build_extractor(x.shape[1:])
    features = compute_features(extractor, x)
    _begin("training frozen")
    head = partial(build_head, features[data.rows("train")], n_classes)
    experiment.fit("frozen", head, features[None], Recipe(2, 32), extractor=extractor, predict_from=x)
    _begin("evaluation")
    experiment.choose("accuracy")
    experiment.calibrate()
    print(experiment.score("test", resamples=100).to_string())
    experiment.show(experiment.plot_history(), "learning_curves")
    experiment.show(plots.plot_counts(data.images, "label"), "class_counts")
    _begin("study")
    base = CNN_SETTINGS | {"filters": 8, "epochs": 1, "batch_size": 32}
    study = experiment.run_study(x, base, {"filters": {"8": {}, "16": {"filters": 16}}}, seeds=range(2))
    if study["error"].any():
        raise RuntimeError("; ".join(study["error"]))
    _begin("saving models")
    for name in experiment.models:
        experiment.save_model(name)
    _begin("review")
    review = Review(experiment, experiment.chosen, resamples=50, most=50)
    for ask in (review.check_leaks, review.check_calibration, review.show_errors, review.find_doubtful_labels):
        ask()
    _begin("export")
    review.export_forms()
    _begin("results")
    experiment.report.save_table(experiment.collect("test"), "predictions")
    experiment.save("by group")


def _begin(stage):
    print(f"## {stage}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torture.whole", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    run(options.folder.resolve(), options.short)
