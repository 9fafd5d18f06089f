"""Cells: found as drawn, measured as computed by hand, cropped around the middle."""

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from helpers.data.cells import crop_to_center, find_cells, find_crop, measure_cells

COLORS = ["red", "green", "blue"]


def make_disc(size, radius, center=None):
    y, x = np.ogrid[: size[0], : size[1]]
    center = center or ((size[0] - 1) / 2, (size[1] - 1) / 2)
    return (y - center[0]) ** 2 + (x - center[1]) ** 2 <= radius**2


def make_cells(radii=(5, 8, 11), size=(32, 40), seed=0):
    """Draw one disc of random colours on each image."""
    masks = np.stack([make_disc(size, radius) for radius in radii])
    levels = np.random.default_rng(seed).integers(60, 256, (*masks.shape, 3))
    return (levels * masks[..., None]).astype("uint8"), masks


@pytest.fixture
def mapped(tmp_path):
    def save(pixels):
        np.save(tmp_path / "pixels.npy", pixels)
        return np.load(tmp_path / "pixels.npy", mmap_mode="r")

    return save


# find_cells


def test_cells_are_found_as_drawn():
    pixels, masks = make_cells()
    found = find_cells(pixels)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, masks)


def test_a_pixel_belongs_to_the_cell_if_one_channel_is_above_the_threshold():
    pixels = np.zeros((1, 4, 5, 3), "uint8")
    pixels[0, 1, 1:4] = [[0, 0, 9], [8, 8, 8], [9, 0, 0]]
    pixels[0, 2, 1:4] = 200
    assert find_cells(pixels)[0, 1].tolist() == [False, True, False, True, False]
    assert find_cells(pixels, threshold=7)[0, 1].tolist() == [False, True, True, True, False]
    assert find_cells(pixels, threshold=9)[0, 1].tolist() == [False] * 5
    np.testing.assert_array_equal(find_cells(pixels[..., 2:]), find_cells(pixels * np.array([0, 0, 1], "uint8")))


def test_holes_are_filled_and_bays_are_not():
    cell = make_disc((30, 30), 12)
    torn = cell.copy()
    torn[14:17, 13:18] = False  # a dark parasite
    torn[9, 9] = False
    torn[20:, 14] = False  # open towards the outside
    expected = cell.copy()
    expected[20:, 14] = False
    found = find_cells((200 * torn[None, ..., None]).astype("uint8"))
    np.testing.assert_array_equal(found[0], expected)


def test_only_the_largest_part_is_the_cell():
    """Its size counts with its holes; parts that touch at a corner are two."""
    image = make_disc((40, 40), 10, (14, 14)) & ~make_disc((40, 40), 9, (14, 14))
    dirt = np.zeros_like(image)
    dirt[30:40, 30:40] = True  # more bright pixels than the ring
    dirt[2, 36] = True
    assert dirt.sum() > image.sum()
    image = image | dirt
    found = find_cells((99 * image[None, ..., None]).astype("uint8"))
    np.testing.assert_array_equal(found[0], make_disc((40, 40), 10, (14, 14)))
    corner = np.zeros((1, 6, 6, 3), "uint8")
    corner[0, :3, :3] = corner[0, 3:5, 3:5] = 50
    assert find_cells(corner).sum() == 9


def test_cells_at_the_edge_of_the_image_are_found():
    image = make_disc((20, 20), 9, (0, 5))
    np.testing.assert_array_equal(find_cells((image[None, ..., None] * 255).astype("uint8"))[0], image)
    assert find_cells(np.full((1, 6, 7, 3), 255, "uint8")).all()


@pytest.mark.parametrize("seed", range(5))
def test_odd_shapes_are_found_as_by_scipy(seed):
    """SciPy fills by growing the outside, with another function."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(48, 40)), 2) > 0.03
    filled = ndimage.binary_fill_holes(noise)
    parts, count = ndimage.label(filled)
    sizes = ndimage.sum_labels(filled, parts, range(1, count + 1))
    found = find_cells((noise[None, ..., None] * 100).astype("uint8"))[0]
    np.testing.assert_array_equal(found, parts == np.argmax(sizes) + 1)


def test_a_black_image_has_no_cell():
    pixels, masks = make_cells()
    pixels[1] = 8
    found = find_cells(pixels)
    assert not found[1].any()
    np.testing.assert_array_equal(found[[0, 2]], masks[[0, 2]])
    assert find_cells(pixels[:0]).shape == (0, 32, 40)


# measure_cells


def test_measures_are_those_of_numpy():
    pixels, masks = make_cells()
    pixels[:, 0, 0] = 255  # not of the cell
    table = measure_cells(pixels)
    assert table.columns.tolist() == ["area", "diameter", "roundness", *COLORS, *(f"{name}_std" for name in COLORS)]
    assert table["area"].tolist() == masks.sum(axis=(1, 2)).tolist()
    np.testing.assert_allclose(np.pi * (table["diameter"] / 2) ** 2, table["area"])
    np.testing.assert_allclose(table["diameter"], [10, 16, 22], rtol=0.03)
    for row, (image, mask) in enumerate(zip(pixels, masks, strict=True)):
        np.testing.assert_allclose(table.loc[row, COLORS].astype(float), image[mask].mean(axis=0))
        np.testing.assert_allclose(
            table.loc[row, [f"{name}_std" for name in COLORS]].astype(float), image[mask].std(axis=0)
        )
    assert len(set(table["red"])) == 3


def test_masks_can_be_given():
    pixels, masks = make_cells()
    pd.testing.assert_frame_equal(measure_cells(pixels, masks), measure_cells(pixels))
    halves = masks & (np.arange(40) < 20)
    assert measure_cells(pixels, halves)["area"].tolist() == halves.sum(axis=(1, 2)).tolist()


def measure_roundness(mask):
    return measure_cells((mask[None, ..., None] * np.full(3, 90)).astype("uint8"))["roundness"][0]


def test_circles_are_round_and_other_shapes_less_so():
    circles = [measure_roundness(make_disc((100, 100), radius)) for radius in (8, 15, 30, 45)]
    assert min(circles) > 0.97
    assert max(circles) <= 1
    square, long = np.zeros((2, 100, 100), bool)
    square[20:80, 20:80] = True
    long[45:55, 10:90] = True
    assert np.pi / 4 < measure_roundness(square) < 0.9
    assert measure_roundness(long) < 0.45
    assert measure_roundness(square) == measure_roundness(square[20:80, 20:80])  # the edge of the image counts


def test_roundness_of_a_few_pixels_is_limited():
    dot = np.zeros((5, 5), bool)
    dot[2, 2] = True
    assert measure_roundness(dot) == 1


def test_an_image_without_a_cell_has_no_colour():
    pixels, _ = make_cells()
    pixels[1] = 0
    table = measure_cells(pixels)
    assert table["area"].dtype.kind == "i"
    assert table.loc[1, ["area", "diameter"]].tolist() == [0, 0]
    assert table.loc[1].isna().sum() == 7
    assert not table.loc[[0, 2]].isna().any(axis=None)


# crop_to_center, find_crop


@pytest.mark.parametrize("size", [(2, 4), (5, 7), (1, 1), (4, 3)])
def test_crops_lie_in_the_middle(size):
    pixels = np.arange(2 * 5 * 7 * 3).reshape(2, 5, 7, 3)
    top, left = {(2, 4): (1, 1), (5, 7): (0, 0), (1, 1): (2, 3), (4, 3): (0, 2)}[size]
    found = crop_to_center(pixels, size)
    np.testing.assert_array_equal(found, pixels[:, top : top + size[0], left : left + size[1]])
    assert np.shares_memory(found, pixels)


def test_one_number_is_a_square_and_masks_are_cropped_too():
    pixels, masks = make_cells()
    np.testing.assert_array_equal(crop_to_center(pixels, 16), crop_to_center(pixels, (16, 16)))
    np.testing.assert_array_equal(find_cells(crop_to_center(pixels, 24)), crop_to_center(masks, 24))


@pytest.mark.parametrize("size", [33, (32, 41), (33, 40), 0, (4, -1)])
def test_a_crop_larger_than_the_images_is_refused(size):
    with pytest.raises(ValueError, match="32 × 40"):
        crop_to_center(make_cells()[0], size)


def test_the_crop_holds_the_share_and_the_next_smaller_one_does_not():
    masks = np.stack([make_disc((64, 80), radius) for radius in (9, 12, 15, 27)])
    for share in (0.5, 0.9, 0.99, 1):
        side = find_crop(masks, share)
        shares = [
            np.mean([crop_to_center(masks, size)[row].sum() / masks[row].sum() for row in range(4)])
            for size in (side - 8, side)
        ]
        assert side % 8 == 0
        assert shares[0] < share <= shares[1] + 1e-9
    assert find_crop(masks, 1) == 56
    assert find_crop(masks, 1, multiple=2) == 54
    assert isinstance(find_crop(masks), int)


def test_each_cell_counts_the_same_and_images_without_one_do_not():
    masks = np.zeros((3, 32, 32), bool)
    masks[0, 15:17, 15:17] = True  # 4 pixels, all within 8
    masks[1, 4:28, 4:28] = True  # 576 pixels, of which 64 within 8
    assert find_crop(masks, (1 + 64 / 576) / 2 - 0.001) == 8
    assert find_crop(masks, (1 + 64 / 576) / 2 + 0.001) == 16


def test_many_masks_are_averaged_like_few():
    masks = np.stack([make_disc((48, 48), radius) for radius in (5, 9, 14, 20)])
    many = np.concatenate([masks[:1]] * 300 + [masks[1:]])
    weights = np.bincount([0] * 300 + [1, 2, 3])
    for share in (0.9, 0.99, 0.999):
        expected = next(
            side
            for side in range(8, 49, 8)
            if np.average(crop_to_center(masks, side).sum(axis=(1, 2)) / masks.sum(axis=(1, 2)), weights=weights)
            >= share
        )
        assert find_crop(many, share) == expected


@pytest.mark.parametrize(
    ("masks", "share", "complaint"),
    [
        (np.zeros((2, 16, 16), bool), 0.9, "no cell"),
        (np.zeros((0, 16, 16), bool), 0.9, "no cell"),
        (np.ones((2, 16, 16), bool), 0, "share above 0"),
        (np.ones((2, 16, 16), bool), 1.1, "share above 0"),
        (np.ones((2, 20, 20), bool), 0.9, "largest holds 64.0%"),
        (np.ones((2, 7, 7), bool), 0.9, "largest holds 0.0%"),
    ],
)
def test_a_crop_that_cannot_be_is_refused(masks, share, complaint):
    with pytest.raises(ValueError, match=complaint):
        find_crop(masks, share)


# all of them


@pytest.mark.parametrize("function", [find_cells, measure_cells])
def test_memory_mapped_images_give_the_same_and_stay(mapped, function):
    pixels, _ = make_cells()
    before = pixels.copy()
    expected, found = function(pixels), function(mapped(pixels))
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected)
    else:
        np.testing.assert_array_equal(found, expected)
        assert type(found) is np.ndarray
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("function", [find_cells, measure_cells])
def test_memory_is_given_back(monkeypatch, function):
    released = []
    monkeypatch.setattr("helpers.data.cells.release_pages", released.append)
    pixels, _ = make_cells()
    function(pixels)
    assert [array is pixels for array in released] == [True]


def test_wrong_shapes_are_refused():
    pixels, masks = make_cells()
    for function in (find_cells, measure_cells):
        with pytest.raises(ValueError, match="Expected images"):
            function(pixels[0])
    with pytest.raises(ValueError, match="height, width, 3"):
        measure_cells(pixels[..., :1])
    with pytest.raises(ValueError, match="do not belong"):
        measure_cells(pixels, masks[:2])
