"""Foreign images: what is unlike the training images is beyond the limit, and little else is."""

import io

import numpy as np
import pandas as pd
import pytest

from helpers.evaluation import foreign
from helpers.evaluation.foreign import Familiar, describe_pixels

SIZE = 40


def draw_cells(rng, count, channels=3, hole=0):
    """Draw bright discs on a dark ground, a little different each time; with a dark hole of some radius."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    shifts, radii = rng.normal(0, 2, (2, count, 1, 1)), rng.normal(SIZE / 4, 1, (count, 1, 1))
    distance = np.hypot(y - shifts[0], x - shifts[1])
    inside = ((distance < radii) & (distance >= hole))[..., None]
    colours = rng.normal([180, 120, 160][:channels], 10, (count, 1, 1, channels))
    grain = rng.normal(0, 4, (count, SIZE, SIZE, channels))
    return (np.where(inside, colours, 30) + grain).clip(0, 255).astype("uint8")


def make_ids(count):
    return [f"cell_{number}" for number in range(count)]


@pytest.fixture(params=[1, 3])
def cells(request):
    """Training, validation and test images."""
    rng = np.random.default_rng(0)
    return [draw_cells(rng, count, request.param) for count in (300, 100, 100)]


def fit_statistics(training, validation):
    described = [describe_pixels(images) for images in (training, validation)]
    return Familiar.fit(None, described[0], make_ids(len(training)), None, described[1])


def draw_foreign(images):
    """Draw images of other kinds, of the same shape."""
    rng = np.random.default_rng(1)
    shape, (height, width, channels) = images.shape, images.shape[1:]
    soft = rng.integers(0, 256, (len(images), 4, 4, channels)).repeat(-(-height // 4), 1).repeat(-(-width // 4), 2)
    page = np.full(shape, 250)
    page[:, 4:-4:4, 4:-4] = rng.integers(0, 250, (len(images), len(range(4, height - 4, 4)), width - 8, 1))
    return {
        "black": np.zeros(shape),
        "white": np.full(shape, 255),
        "one level": np.broadcast_to(rng.integers(0, 256, (len(images), 1, 1, channels)), shape),
        "noise": rng.integers(0, 256, shape),
        "tiles": soft[:, :height, :width],
        "page": page,
        "inverted": 255 - images,
    }


def test_other_kinds_of_images_are_foreign(cells):
    training, validation, test = cells
    familiar = fit_statistics(training, validation)
    assert (familiar.compare(None, describe_pixels(test))[0] > 1).mean() <= 0.06
    for kind, images in draw_foreign(test).items():
        distance, _ = familiar.compare(None, describe_pixels(images.astype("uint8")))
        assert (distance > 1).mean() >= 0.98, kind


def test_features_see_what_statistics_do_not():
    rng = np.random.default_rng(0)
    known, validation, test, strange = rng.normal(size=(4, 400, 20))
    statistics = rng.normal(size=(4, 400, 10))
    for part in (known, validation, test):
        part[:, :2] += 8
    strange[:, 2:4] += 8  # as long, but in another direction
    familiar = Familiar.fit(known, statistics[0], make_ids(400), validation, statistics[1])
    assert (familiar.compare(test, statistics[2])[0] > 1).mean() <= 0.05
    assert (familiar.compare(strange, statistics[3])[0] > 1).all()
    assert (familiar.compare(test, statistics[2] + 20)[0] > 1).all()
    distance, _ = familiar.compare(3 * test, statistics[2])  # how long features are says how sure the model is
    np.testing.assert_allclose(distance, familiar.compare(test, statistics[2])[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("count", "most"),
    [(1, 0), (49, 0), (98, 0), (99, 1), (449, 8), (1000, 19), *((count, 0) for count in range(50, 71))],
)
def test_at_most_two_percent_of_the_validation_images_are_beyond_the_limit(count, most):
    rng = np.random.default_rng(count)
    features, statistics = rng.normal(size=(500 + count, 30)), rng.normal(size=(500 + count, 12))
    known, validation = slice(500), slice(500, None)
    familiar = Familiar.fit(
        features[known], statistics[known], make_ids(500), features[validation], statistics[validation]
    )
    distance, _ = familiar.compare(features[validation], statistics[validation])
    beyond = np.count_nonzero(distance > 1)
    assert most - 1 <= beyond <= most <= 0.02 * count
    # In batches of another size distances are rounded otherwise.
    one_by_one = [familiar.compare(features[[row]], statistics[[row]])[0][0] for row in range(500, 500 + count)]
    assert np.count_nonzero(np.array(one_by_one) > 1) == beyond


def test_the_nearest_training_image_is_named():
    features, statistics = np.random.default_rng(0).normal(size=(2, 200, 16))
    for given in (features, None):
        moved = None if given is None else given + 1
        familiar = Familiar.fit(given, statistics, make_ids(200), moved, statistics + 1)
        distance, nearest = familiar.compare(given, statistics)
        assert nearest.tolist() == make_ids(200)
        assert distance.max() < 0.05
    familiar = Familiar.fit(features, statistics, make_ids(200), features, statistics)
    _, nearest = familiar.compare(features[::-1], statistics)
    assert nearest.tolist() == make_ids(200)[::-1]  # by features


def test_at_most_2000_training_images_are_kept():
    values = np.random.default_rng(0).normal(size=(2501, 4))
    familiar = Familiar.fit(None, values, make_ids(2501), None, values)
    assert len(set(familiar.ids)) == len(familiar.statistics.prototypes) == 2000
    assert familiar.ids[[0, -1]].tolist() == ["cell_0", "cell_2500"]
    kept = [int(name.removeprefix("cell_")) for name in familiar.ids]
    assert familiar.compare(None, values[kept])[1].tolist() == familiar.ids.tolist()


@pytest.mark.parametrize("with_features", [True, False])
def test_the_most_similar_images_come_in_their_order_and_the_first_one_is_the_nearest(with_features):
    rng = np.random.default_rng(5)
    statistics, features = rng.random((50, 20), "float32"), rng.random((50, 8), "float32") if with_features else None
    familiar = Familiar.fit(features, statistics, make_ids(50), features, statistics)
    others = rng.random((6, 8), "float32") if with_features else None, rng.random((6, 20), "float32")
    similar = familiar.find_similar(*others, 50)
    assert familiar.find_similar(*others, 4).tolist() == similar[:, :4].tolist()
    assert similar[:, 0].tolist() == familiar.compare(*others)[1].tolist()
    space = familiar.features if with_features else familiar.statistics
    values = foreign._make_unit(others[0]) if with_features else others[1]
    known = dict(zip(familiar.ids.tolist(), space.prototypes.astype("float32"), strict=True))
    for image, names in zip(space.project(values), similar, strict=True):
        assert len(set(names)) == 50
        distances = [np.linalg.norm(known[name] - image) for name in names]
        assert (np.diff(distances) > -1e-3).all()


def write_and_read(familiar):
    np.savez(file := io.BytesIO(), allow_pickle=False, **familiar.to_arrays())
    size = file.tell()
    file.seek(0)
    return Familiar.from_arrays(dict(np.load(file, allow_pickle=False))), size


@pytest.mark.parametrize("width", [None, 1, 64, 20_000])
def test_arrays_hold_all_of_it_in_two_megabytes(width):
    rng = np.random.default_rng(0)
    count = foreign.PROTOTYPES if width != 20_000 else 70  # to be quick: the projection is the large part there
    ids = [
        f"Tomato___Yellow_Leaf_Curl_Virus/a_long_name_of_a_file_\udcff_ü_{number:070}.JPG" for number in range(count)
    ]
    features = None if width is None else rng.random((count, width), "float32")
    statistics = rng.random((count, 61), "float32")
    given = features, statistics, ids, features, statistics
    familiar = Familiar.fit(*given)
    again, size = write_and_read(familiar)
    assert size < 2e6
    others = None if features is None else features[::-1] * rng.random(width, "float32"), statistics
    for mine, its in zip(familiar.compare(*others), again.compare(*others), strict=True):
        np.testing.assert_array_equal(mine, its)
    assert set(again.ids) == set(ids)
    if width != 20_000:
        for name, array in Familiar.fit(*given).to_arrays().items():
            np.testing.assert_array_equal(array, familiar.to_arrays()[name])


def test_images_that_are_all_the_same():
    same, other = np.full((20, 8), 3.0), np.tile([3.0, 9.0], (20, 4))
    for features in (same, np.zeros((20, 8))):
        familiar = Familiar.fit(features, same, make_ids(20), features, same)
        assert (familiar.compare(features, same)[0] <= 1).all()
        assert (familiar.compare(features, other)[0] > 1).all()
    assert (Familiar.fit(same, same, make_ids(20), same, same).compare(other, same)[0] >= 0).all()
    assert np.isinf(familiar.compare(np.full((1, 8), np.nan), same[:1])[0]).all()


def test_statistics_of_an_image_do_not_depend_on_the_others():
    rng = np.random.default_rng(0)
    for shape in ((5, 5, 1), (28, 28, 1), (25, 90, 3), (128, 97, 3)):
        images = rng.integers(0, 256, (6, *shape)).astype("uint8")
        described = describe_pixels(images)
        assert described.shape == (6, 37 if shape[-1] == 1 else 61)
        assert described.dtype == np.float32
        alone = np.concatenate([describe_pixels(image[None]) for image in images])
        np.testing.assert_allclose(described, alone, rtol=1e-5, atol=1e-4)
        turned = images[:, :, ::-1]  # a view that is not contiguous
        np.testing.assert_array_equal(describe_pixels(turned), describe_pixels(turned.copy()))


def test_statistics_tell_where_and_which_way():
    y, x = np.mgrid[:SIZE, :SIZE]
    stripes = (255 * (y % 2)).astype("uint8")[None, ..., None]
    across, along = describe_pixels(np.concatenate([stripes, stripes.transpose(0, 2, 1, 3)]))
    np.testing.assert_allclose(across[-6:], [np.log1p(255), 0, 0, 0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(along[-6:], [0, 0, 1, np.log1p(255), 0, 0], atol=1e-6)
    middle = (np.maximum(abs(y - SIZE / 2), abs(x - SIZE / 2)) < SIZE / 4)[None, ..., None]
    bright, dark = describe_pixels(np.concatenate([200 * middle, 200 * ~middle]).astype("uint8"))
    assert bright[9] > 100 > -40 > dark[9]
    assert bright[7] + dark[7] == pytest.approx(200)


def test_a_grey_image_is_described_alike_in_colour():
    grey = np.random.default_rng(0).integers(0, 256, (4, 30, 30, 1)).astype("uint8")
    colour = describe_pixels(grey.repeat(3, axis=3))
    np.testing.assert_allclose(colour[:, :12], describe_pixels(grey)[:, :12], rtol=1e-6)
    assert not colour[:, [19, 20, 21, 31, 32, 33]].any()  # no colour: mean, spread and middle


@pytest.mark.parametrize("shape", [(4, 30, 1), (30, 4, 3), (30, 30, 2)])
def test_images_that_cannot_be_described(shape):
    with pytest.raises(ValueError, match="at least 5x5 pixels"):
        describe_pixels(np.zeros((2, *shape), "uint8"))


def test_what_cannot_be_fitted():
    values = np.random.default_rng(0).normal(size=(10, 5))
    for ids, features, validation in ((10, values[:9], values), (9, values, values), (10, values, values[:0])):
        with pytest.raises(ValueError, match="Expected values of two training images"):
            Familiar.fit(features, values, make_ids(ids), validation, values)
    with pytest.raises(ValueError, match="two training images at least"):
        Familiar.fit(None, values[:1], make_ids(1), None, values)
    with pytest.raises(ValueError, match="missing or infinite"):
        Familiar.fit(values * [1, 1, 1, 1, np.nan], values, make_ids(10), values, values)


def test_arrays_that_are_not_its_own():
    values = np.random.default_rng(0).normal(size=(10, 5))
    arrays = Familiar.fit(values, values, make_ids(10), values, values).to_arrays()
    for wrong in ({}, {"version": np.array(0)}):
        with pytest.raises(ValueError, match="another version"):
            Familiar.from_arrays(arrays | wrong if wrong else wrong)
    for name in ("ids", "features_limit", "statistics_mean"):
        with pytest.raises(ValueError, match="incomplete"):
            Familiar.from_arrays({key: array for key, array in arrays.items() if key != name})


def test_distances_are_summarized_by_kind():
    kinds = ["test"] * 4 + ["far"] * 2 + ["alike"] * 2
    distances = np.array([0.5, 0.6, 0.8, 1.1, 3, 4, 0.55, 0.7])
    table = foreign.summarize_distances(pd.DataFrame({"kind": kinds, "distance": distances, "foreign": distances > 1}))
    assert table.index.tolist() == ["test", "far", "alike"]
    assert table["images"].tolist() == [4, 2, 2]
    assert table["refused"].tolist() == [0.25, 1, 0]
    np.testing.assert_allclose(table["roc_auc"], [np.nan, 1, 3 / 8])


def test_images_without_features_are_the_most_distant():
    values = np.random.default_rng(0).normal(size=(30, 5))
    familiar = Familiar.fit(values, values, make_ids(30), values, values)
    distances = np.r_[familiar.compare(values, values)[0], familiar.compare(values * np.nan, values)[0]]
    kinds = np.repeat(["test", "missing"], 30)
    table = foreign.summarize_distances(pd.DataFrame({"kind": kinds, "distance": distances, "foreign": distances > 1}))
    assert table.loc["missing", ["refused", "roc_auc"]].tolist() == [1, 1]
