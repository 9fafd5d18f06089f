"""The built-in sample of C-NMC: the layout and the traps of the original, learnable."""

import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import binary_erosion, gaussian_filter, label
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers.data.audit import find_conflicts, leave_out_unusable
from helpers.data.catalog import get_data_set
from helpers.data.pixels import hash_files, load_pixels
from samples import make_sample

ROOT = "C-NMC_Leukemia"
VALIDATION = f"{ROOT}/validation_data/C-NMC_test_prelim_phase_data"


@pytest.fixture(scope="module")
def data_set():
    return get_data_set("leukemia")


@pytest.fixture(scope="module")
def folder(data_set, cache_with_samples):
    return make_sample(data_set, cache_with_samples / "samples")


@pytest.fixture(scope="module")
def pixels(images, folder, cache):
    return load_pixels(images, folder, (72, 72, 3), cache)


@pytest.fixture(scope="module")
def inside(pixels):
    return pixels.max(-1) > 0


@pytest.fixture(scope="module")
def signs(pixels, inside):
    """Measure each cell: its area, the contrasts of its nucleus from fine to coarse, its darkest and lightest spot."""
    return np.array([measure_cell(*pair) for pair in zip(pixels, inside, strict=True)])


@pytest.fixture(scope="module")
def sets(images):
    """Tell which images are for training and which for validation."""
    return [(images["part"] == part).to_numpy() for part in ("training_data", "validation_data")]


def measure_cell(pixels, inside):
    nucleus = binary_erosion(inside, iterations=7)
    red = pixels[..., 0] / pixels[nucleus, 0].mean()
    scales = [red, *(gaussian_filter(red, scale) for scale in (0.6, 1, 1.6, 2.5, 4))]
    contrasts = [np.log((fine - coarse)[nucleus].std()) for fine, coarse in pairwise(scales)]
    return inside.mean(), *contrasts, scales[2][nucleus].min(), scales[2][nucleus].max()


def list_files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_nothing_is_wrong_with_the_files(indexed, measured):
    images, problems = indexed
    kept, problems = leave_out_unusable(images, problems, measured)
    assert problems.empty
    assert len(kept) == len(images)


def test_layout_is_that_of_the_original(folder, images):
    assert list_files(folder) == sorted([*images["path"], f"{VALIDATION}_labels.csv"])
    assert {path.rpartition("/")[0] for path in images["path"]} == {
        *(f"{ROOT}/training_data/fold_{fold}/{label}" for fold in range(3) for label in ("all", "hem")),
        VALIDATION,
        f"{ROOT}/testing_data/C-NMC_test_final_phase_data",
    }


def test_files_are_small_bitmaps_in_colour(folder, images, measured):
    assert (measured[["width", "height"]] == 72).all(axis=None)
    assert (measured["mode"] == "RGB").all()
    for path in images["path"].iloc[[0, 450, -1]]:
        with Image.open(folder / path) as image:
            assert image.format == "BMP"
    assert sum((folder / name).stat().st_size for name in list_files(folder)) < 12e6


def test_counts(images):
    counts = pd.crosstab(images["part"], images["label"].fillna("none"))
    assert counts.loc["training_data"].tolist() == [277, 143, 0]
    assert counts.loc["validation_data"].tolist() == [84, 46, 0]
    assert counts.loc["testing_data"].tolist() == [0, 0, 60]


def test_subjects(images):
    """Ten for training, each in one fold, five others for validation; healthy ones have an H."""
    labelled = images[images["group"].notna()]
    place = labelled["fold"].fillna(labelled["part"])
    assert place.groupby(labelled["group"]).nunique().max() == 1
    assert pd.crosstab(place, labelled["label"]).gt(0).all(axis=None)
    assert find_conflicts(labelled).empty
    assert (labelled["group"].str.startswith("H") == (labelled["label"] == "hem")).all()
    subjects = labelled.groupby("part")["group"].unique()
    healthy = {part: [sum(name.startswith("H") for name in names), len(names)] for part, names in subjects.items()}
    assert healthy == {"training_data": [4, 10], "validation_data": [2, 5]}


def test_each_subject_has_several_cells_in_several_microscope_images(images):
    counts = images.groupby("group")["microscope_image"].agg(["size", "nunique"])
    assert counts["size"].between(20, 50).all()
    assert (counts["nunique"] >= 5).all()
    assert (counts["size"] > 1.5 * counts["nunique"]).all()


def test_numbers_of_validation_and_testing_tell_nothing(images):
    for part in ("validation_data", "testing_data"):
        rows = images[images["part"] == part]
        assert rows["path"].str.extract(r"/(\d+)\.bmp$")[0].astype(int).tolist() == list(range(1, len(rows) + 1))
    rows = images[images["part"] == "validation_data"]
    assert (rows["group"] != rows["group"].shift()).sum() > 60


def test_the_table_is_written_as_in_the_original(folder):
    header, *lines = (folder / f"{VALIDATION}_labels.csv").read_text().splitlines()
    assert header == "Patient_ID,new_names,labels"
    assert len(lines) == 130
    for line in lines:
        assert re.fullmatch(r"UID_(\d+_\d+_\d+_all\.bmp,\d+\.bmp,1|H\d+_\d+_\d+_hem\.bmp,\d+\.bmp,0)", line)


def test_no_image_is_there_twice(images, folder):
    assert hash_files(images, folder).is_unique


def test_cells_are_cut_out_on_pure_black(pixels, inside):
    """One piece in the middle, and hardly anything at the border of the image."""
    assert not pixels[:, [0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert inside[:, 30:42, 30:42].mean() > 0.999
    largest = [np.bincount(label(mask)[0].ravel())[1:].max() / mask.sum() for mask in inside]
    assert np.mean(largest) > 0.99
    border = np.concatenate([inside[:, 0], inside[:, -1], inside[:, :, 0], inside[:, :, -1]], axis=1)
    assert border.mean() < 0.01


def test_nuclei_are_purple_and_the_rim_is_lighter(pixels, inside):
    nuclei = np.array([image[24:48, 24:48].mean((0, 1)) for image in pixels])
    assert (nuclei[:, [0, 2]] > nuclei[:, [1]] * 1.2).all()
    rims = np.array(
        [
            image[binary_erosion(mask) & ~binary_erosion(mask, iterations=4)].mean(0)
            for image, mask in zip(pixels, inside, strict=True)
        ]
    )
    assert (rims[:, 1] > nuclei[:, 1]).mean() > 0.95


def test_each_subject_has_its_own_stain(images, pixels, inside):
    """Colours differ more between subjects than within one."""
    colors = pd.DataFrame([image[mask].mean(0) for image, mask in zip(pixels, inside, strict=True)])
    subjects = colors.groupby(images["group"])
    assert (subjects.mean().std() > 1.2 * subjects.std().mean()).all()


def test_each_subject_has_its_own_sizes(images, inside):
    """The means of a class's subjects differ by more than chance alone would let them."""
    areas = pd.DataFrame({"area": inside.mean((1, 2)), "group": images["group"], "label": images["label"]}).dropna()
    subjects = areas.groupby(["label", "group"])["area"].agg(["mean", "sem"])
    spread = subjects["mean"] - subjects.groupby("label")["mean"].transform("mean")
    assert spread.pow(2).sum() > 2 * subjects["sem"].pow(2).sum()


def test_what_suits_the_training_subjects_misleads_on_others(images, signs, sets):
    """In training chromatin tells more than the area; in validation, as in the original, nothing beats the area."""
    leukemic, training = (images["label"] == "all").to_numpy(), sets[0]

    def measure(score):
        return [roc_auc_score(leukemic[chosen], score[chosen]) for chosen in sets]

    def measure_line(values):
        """Fit a line through signs of training; of the other set its subjects are new."""
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(values[training], leukemic[training])
        return measure(model.decision_function(values))

    area, chromatin, both = measure(signs[:, 0]), measure_line(signs[:, 1:]), measure_line(signs)
    assert 0.72 < area[0] < 0.86
    assert area[0] + 0.1 < chromatin[0] <= both[0] < 0.999
    assert 0.9 < area[1] < 0.99
    assert 0.65 < chromatin[1] < both[1] < area[1] - 0.05
