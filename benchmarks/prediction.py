"""Prediction: one image, and many, by Keras, by this project, and by its export in ONNX Runtime."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.common import NETWORKS, compare, compute_rate, draw_images, draw_pixels, measure_in_turn
from benchmarks.networks import build, compile_as_fit, list_precisions
from benchmarks.training import make_convolutions
from helpers.data.pixels import read_image
from helpers.evaluation.foreign import PROTOTYPES, Familiar, describe_pixels
from helpers.predict import predict_files
from helpers.training.fast import predict_probabilities, predict_with_features
from helpers.training.saving import save_model, save_onnx

KERAS, BOUND = "Keras, model.predict", "convolutions alone"
TOLERANCE = {"float32": 1e-3, "mixed_bfloat16": 2e-2}  # bfloat16 has 8 bits


def measure_prediction(name, precision, rounds=9, tiny=False):
    """Compare images per second, one image alone and many in batches of 256, also with the convolutions alone."""
    import onnxruntime  # here only: it is not needed to list the rows

    if precision not in list_precisions():
        return []
    shape, *_ = NETWORKS[name]
    batch_size = 8 if tiny else 256
    images, labels = draw_pixels(4 * batch_size, shape)
    model = compile_as_fit(build(name, precision), learning_rate=0.0)
    for _ in range(60):  # batch normalization takes the statistics of the pixels: no class is certain then
        model.train_on_batch(images[:8], labels[:8])
    images = images.astype("uint8")  # as the notebooks have them
    works = {
        "ours": lambda batch: predict_probabilities(model, batch, batch_size=batch_size),
        KERAS: lambda batch: model.predict(batch, batch_size=batch_size, verbose=0),
    }
    if precision == "float32":  # which the export computes in
        with tempfile.TemporaryDirectory() as folder:
            save_onnx(model, Path(folder) / "model.onnx", images[:8])
            session = onnxruntime.InferenceSession(Path(folder) / "model.onnx", providers=["CPUExecutionProvider"])
        feed = session.get_inputs()[0].name

        def run_session(batch):
            parts = np.split(batch.astype("float32"), range(batch_size, len(batch), batch_size))
            return np.concatenate([session.run(None, {feed: part})[0] for part in parts])

        works["ours, ONNX Runtime"] = run_session
    rows = []
    for count in (1, len(images)):
        some = images[:count]
        results = {way: work(some) for way, work in works.items()}
        calls = 1 if tiny else 30 if count == 1 else 1
        ways = {way: partial(compute_rate, partial(work, some), count, calls) for way, work in works.items()}
        batch = min(count, batch_size)
        convolve = make_convolutions(model, batch, precision, backward=False)
        convolve()  # tracing
        ways[BOUND] = partial(compute_rate, convolve, batch, calls * count // batch)
        measured = measure_in_turn(ways, rounds)
        for way in [way for way in works if way != KERAS]:
            difference = float(np.abs(results[way] - results[KERAS]).max())
            if difference > TOLERANCE[precision]:
                raise ValueError(f"{way} and Keras differ by {difference:.2g} in {name}, {precision}, batch {batch}.")
            what = f"prediction, {name}, {precision}, batch {batch}, {way.removeprefix('ours, ')}"
            note = f"the largest difference is {difference:.1g}"
            rows.append(compare(what, way, KERAS, measured, difference=difference, note=note))
        what = f"prediction, {name}, {precision}, batch {batch}, bound"
        rows.append(compare(what, "ours", BOUND, measured))
    return rows


def measure_command(name, rounds=5, tiny=False):
    """Compare ``python -m helpers.predict`` with and without the check for foreign images: images per second."""
    shape, count = NETWORKS[name][0], 16 if tiny else 2000
    model = build(name, "float32")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        images = draw_images(folder / "images", count, (600, 450), shape[2])
        pixels = np.stack([read_image(folder / "images" / path, shape) for path in images["path"][:100]])
        pixels = np.resize(pixels, (PROTOTYPES, *shape))
        known = predict_with_features(model, pixels)[1], describe_pixels(pixels)
        familiar = Familiar.fit(*known, [str(number) for number in range(PROTOTYPES)], *known)

        def predict(way):
            (folder / "table.csv").unlink(missing_ok=True)
            predict_files(folder / f"{way}.keras", folder / "images", folder / "table.csv")

        for way, arrays in (("with the check", familiar.to_arrays()), ("without", None)):
            save_model(model, folder / f"{way}.keras", {}, arrays)
            predict(way)
        ways = {way: partial(compute_rate, partial(predict, way), count) for way in ("with the check", "without")}
        measured = measure_in_turn(ways, rounds)
    note = f"{count:,} JPEGs of 600x450, with the model's loading"
    return [compare(f"predicting files, {name}", "with the check", "without", measured, note=note)]


ROWS = {
    f"prediction-{name}-{precision}": partial(measure_prediction, name, precision)
    for name in ("160x120x3", "28x28x1")
    for precision in TOLERANCE
}
ROWS |= {f"prediction-files-{name}": partial(measure_command, name) for name in ("160x120x3", "28x28x1")}
