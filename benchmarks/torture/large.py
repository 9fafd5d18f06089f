"""Large folders: 100,000 images are prepared, compared and predicted, in time that is linear and memory that is flat.

The images are drawn. A quarter of them differ, the others are copies, some of them turned; some are blank, and many
are one image.
"""

import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.common import draw_images, read_peak_memory, run_alone
from benchmarks.torture import Case
from helpers.data import audit
from helpers.data.catalog import DataSet
from helpers.data.duplicates import find_near_duplicates
from helpers.data.opening import open_data_set
from helpers.predict import predict_files
from helpers.settings import PROJECT_FOLDER, read_settings

_COUNTS, _SHORT_COUNT = (25_000, 100_000), 2000
_SHAPE, _THUMBNAIL = (32, 32, 3), (32, 32, 1)
_BLANK, _MASS, _TURNED = 0.03, 0.02, 0.01  # shares of the images: blank, copies of one image, turned copies
_LEVELS = 16  # grey levels of blank images
_BATCH_SIZE = 64  # of all predictions: in another batch an image may be rounded otherwise in the sixth digit
_SECONDS, _SEARCH_SECONDS, _GIGABYTES = 600, 120, 2.0  # at most, for the largest folder
_SLOWER = 1.5  # times the seconds of the processor that an image takes in the smaller folder
_KILOBYTES = 4  # of memory, for each further image: its row in the tables
_MASSES = 3000  # blank images, and copies of one image, that are compared alone
_SHORT_PREDICTED = 300
_RECORD = DataSet(
    name="drawn",
    title="Drawn images",
    task="Which of two classes is it?",
    class_names=("first", "second"),
    class_labels={"first": "first", "second": "second"},
    layout="class_folders",
    key_file="all",
    files="images in all/{first,second}/",
    handle="none:none/versions/1",
    expected_counts={"all": _COUNTS[-1]},
    group_rule="images that look alike",
    image_shape=_SHAPE,
    allowed_augmentation="none",
    citation="drawn",
    licence="CC0",
    joined=("identical", "alike"),
)


def run(short=False):
    """Prepare folders of images, look for near-duplicates in masses, and kill a prediction: a list of `Case`."""
    with tempfile.TemporaryDirectory() as place:
        folders = {count: Path(place, str(count)) for count in ([_SHORT_COUNT] if short else _COUNTS)}
        for count, folder in folders.items():
            draw(folder, count)
        found = {count: prepare(folder) if short else run_alone(prepare, folder) for count, folder in folders.items()}
        cases = [*map(judge_groups, found.values()), *judge_masses()]
        cases += [] if short else judge_cost(*found.values())
        return [*cases, judge_prediction(folders[max(folders)], _SHORT_PREDICTED if short else max(folders), short)]


def draw(folder, count):
    """Draw so many images into ``folder/drawn/all/{first,second}/``."""
    blank, mass, turned = (int(share * count) for share in (_BLANK, _MASS, _TURNED))
    images = folder / _RECORD.name / _RECORD.key_file
    drawn = draw_images(images, count - blank - mass - turned, (64, 64), 3, count_different(count), noise=4.0)
    for number, row in enumerate(drawn[:turned].itertuples()):
        with Image.open(images / row.path) as image:
            copy = image.transpose(Image.Transpose(number % 7))
        copy.save(images / row.label / f"turned {row.image_id}.jpg", quality=90, subsampling=0)
    content = (images / drawn["path"].iloc[0]).read_bytes()
    for number in range(mass):
        (images / "first" / f"again {number}.jpg").write_bytes(content)
    for number in range(blank):
        level = 255 * (number % _LEVELS) // (_LEVELS - 1)
        Image.new("RGB", (64, 64), (level,) * 3).save(images / "first" / f"blank {number}.jpg")


def count_different(count):
    """Count the pictures that differ among so many images, without the blank ones."""
    return count // 4


def prepare(folder):
    """Open the folder's images as a data set, split them and load their pixels; then look for near-duplicates alone.

    Return what was found, the seconds of both, those of the processor, and the peak memory of this process in GB.
    """
    settings = replace(
        read_settings({}), data_dir=folder, data_dir_given=True, source="local", cache_dir=folder / "cache"
    )
    start, started = time.perf_counter(), time.process_time()
    data = open_data_set(_RECORD, settings)
    data.split_images(validation=0.2, test=0.2)
    pixels = data.load_pixels(_SHAPE)
    seconds, processor = time.perf_counter() - start, time.process_time() - started
    thumbnails = data.load_pixels(_THUMBNAIL)
    start = time.perf_counter()
    pairs = find_near_duplicates(thumbnails)
    return {
        "images": len(pixels),
        "groups": data.images["group"].nunique(),
        "leaked": int(audit.find_leaks(data.images, data.images["split"])["leaked"].sum()),
        "pairs": len(pairs),
        "seconds": seconds,
        "processor": processor,
        "search": time.perf_counter() - start,
        "gigabytes": read_peak_memory(),
    }


def judge_groups(found):
    """Judge whether all copies were found, and no others."""
    count = found["images"]
    groups = count_different(count) + _LEVELS
    happened = f"{found['groups']:,} groups of {count:,} images, {found['leaked']} images on two sides"
    right = found["groups"] == groups and found["leaked"] == 0
    return Case(f"copies among {count:,} images", f"{groups:,} groups; none on two sides", happened, right)


def judge_cost(few, many):
    """Judge time and memory of the path from the files to the pixels, and of the search for near-duplicates in it."""
    few_images, many_images = (f"{found['images']:,} images" for found in (few, many))
    path = f"index, hashes, measures, near-duplicates, split and pixels of {many_images}"
    slower = many["processor"] / many["images"] / (few["processor"] / few["images"])
    kilobytes = 1e6 * (many["gigabytes"] - few["gigabytes"]) / (many["images"] - few["images"])
    return [
        Case(path, f"at most {_SECONDS} s", f"{many['seconds']:.0f} s", many["seconds"] <= _SECONDS),
        Case(
            f"near-duplicates of {many_images}",
            f"at most {_SEARCH_SECONDS} s",
            f"{many['search']:.1f} s, {many['pairs']:,} pairs; {few['search']:.1f} s for {few_images}",
            many["search"] <= _SEARCH_SECONDS,
        ),
        Case(
            f"time of the processor for each of {many_images}",
            f"at most {_SLOWER} times that of each of {few_images}",
            f"{slower:.2f} times; {many['processor']:.0f} s and {few['processor']:.0f} s in all",
            slower <= _SLOWER,
        ),
        Case(
            f"peak memory of {many_images}",
            f"at most {_GIGABYTES:.0f} GB, and {_KILOBYTES} KB for each more than {few_images}",
            f"{many['gigabytes']:.2f} GB; {few['gigabytes']:.2f} GB for {few_images}: {kilobytes:.1f} KB for each",
            many["gigabytes"] <= _GIGABYTES and kilobytes <= _KILOBYTES,
        ),
    ]


def judge_masses():
    """Judge what is found among blank images and among copies of one image, which are in as many pairs as it gets."""
    rng = np.random.default_rng(0)
    one = rng.integers(0, 256, (1, *_THUMBNAIL), "uint8")
    blank = np.broadcast_to(np.uint8(255), (_MASSES, *_THUMBNAIL))
    same = np.concatenate([np.rot90(one, number % 4, (1, 2)) for number in range(_MASSES)])
    cases = []
    for name, images, most, groups in (("blank images", blank, 0, _MASSES), ("turned copies of one", same, 100_000, 1)):
        pairs = find_near_duplicates(images)
        joined = audit.join_groups(pd.DataFrame({"group": range(_MASSES)}), pairs=pairs).nunique()
        expected = f"at most {most:,} pairs; {groups:,} groups"
        right = len(pairs) <= most and joined == groups
        cases.append(Case(f"{_MASSES:,} {name}", expected, f"{len(pairs):,} pairs; {joined:,} groups", right))
    return cases


def judge_prediction(folder, count, short):
    """Judge whether a prediction of so many images that is killed and started again ends with the same table."""
    call = _call_here if short else run_alone
    model, whole, table = (folder / name for name in ("model.keras", "whole.csv", "killed.csv"))
    images = folder / _RECORD.name
    paths = [str(path) for path in sorted(images.rglob("*.jpg"))[:count]] if short else [str(images)]
    call(save_network, model)
    _, seconds, gigabytes = call(predict, model, paths, whole)
    command = [
        sys.executable,
        "-m",
        "helpers.predict",
        str(model),
        *paths,
        "--out",
        str(table),
        "--batch-size",
        f"{_BATCH_SIZE}",
    ]
    until = np.random.default_rng(0).uniform(0.1, 0.9) * whole.stat().st_size
    killed = subprocess.Popen(command, cwd=PROJECT_FOLDER)
    while killed.poll() is None and not (table.exists() and table.stat().st_size > until):
        time.sleep(0.002)
    killed.kill()
    killed.wait()
    before, *_ = call(predict, model, paths, table)
    files = pd.read_csv(table)["file"]
    same = table.read_bytes() == whole.read_bytes()
    expected, happened = (
        "goes on; the same table",
        f"killed after {before:,}; {'the same' if same else 'another'} table",
    )
    right = 0 < before < count == files.nunique() == len(files) and same
    if not short:
        expected += f"; at most {_GIGABYTES:.0f} GB"
        happened += f"; undisturbed {seconds:.0f} s, {gigabytes:.2f} GB"
        right &= gigabytes <= _GIGABYTES
    return Case(f"prediction of {count:,} files, killed (SIGKILL)", expected, happened, right)


def _call_here(function, *arguments):
    return function(*arguments)


def save_network(path):
    """Save a small network that nobody has trained."""
    from helpers.training.fast import set_seed
    from helpers.training.networks import build_cnn
    from helpers.training.saving import save_model

    set_seed(0)
    network = build_cnn((28, 28, 1), 2, ([128], [64]), filters=((8,), (16,)))
    save_model(network, path, {"class_names": list(_RECORD.class_names)})


def predict(model, paths, table):
    """Predict images: how many were predicted before, the seconds, and the peak memory of this process in GB."""
    start = time.perf_counter()
    outcome = predict_files(model, paths, table, batch_size=_BATCH_SIZE)
    return outcome.before, time.perf_counter() - start, read_peak_memory()
