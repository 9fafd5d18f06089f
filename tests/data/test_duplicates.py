"""Near-duplicates: the same picture is found whichever way up; one that only looks alike from afar is not."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.fft import dctn, idctn

from helpers.data import duplicates
from helpers.data.audit import check_split, join_groups
from helpers.data.duplicates import find_derived_copies, find_near_duplicates

COLUMNS = ["first", "second", "bits", "correlation"]
ORIENTATIONS = [(turns, mirrored) for mirrored in (False, True) for turns in range(4)]
SIDE = 32


def draw_textures(count, side=SIDE, seed=0, steepness=1.2):
    """Draw images like photographs in that they are the rougher the closer one looks: no two of them alike."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    frequency[0, 0] = 1
    textures = np.fft.ifft2(np.fft.fft2(rng.normal(size=(count, side, side))) / frequency**steepness).real
    textures -= textures.mean(axis=(1, 2), keepdims=True)
    return np.clip(128 + 45 * textures / textures.std(axis=(1, 2), keepdims=True), 0, 255).astype("uint8")[..., None]


def draw_spots(count, textures, side=SIDE, centre=(0.42, 0.56), seed=0):
    """Draw light images with a dark soft ellipse each, all at the same place, with the given texture over them."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    ellipse = np.hypot((y - centre[0]) / 0.3, (x - centre[1]) / 0.2)
    image = 190 - 120 / (1 + np.exp(4 * (ellipse - 1)))
    return np.clip(image[None, ..., None] + textures, 0, 255).astype("uint8")


def turn(images, turns, mirrored):
    return np.rot90(images[:, :, ::-1] if mirrored else images, turns, (1, 2))


def shrink(image, side=SIDE):
    return np.asarray(Image.fromarray(image[..., 0]).resize((side, side), Image.Resampling.BOX))[..., None]


def encode(image, quality):
    file = io.BytesIO()
    Image.fromarray(image[..., 0]).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))[..., None]


def get_pairs(table):
    return list(zip(table["first"], table["second"], strict=True))


def compare_by_hand(images, most_bits, least_correlation):
    """Compare every pair of images in every orientation: turned as pixels, not as frequencies."""
    low = np.add.outer(np.arange(images.shape[1]), np.arange(images.shape[2])) < 4

    def describe(pixels):
        frequencies = dctn(pixels[..., 0].astype("float64"), axes=(1, 2), norm="ortho")
        bits = frequencies[:, :8, :8].reshape(len(pixels), 64)[:, 1:] > 0
        detail = idctn(np.where(low, 0, frequencies), axes=(1, 2), norm="ortho").reshape(len(pixels), -1)
        return bits, detail / np.linalg.norm(detail, axis=1, keepdims=True)

    bits, detail = describe(images)
    best = {}
    for turns, mirrored in ORIENTATIONS:
        other_bits, other_detail = describe(turn(images, turns, mirrored))
        for first in range(len(images)):
            for second in range(first + 1, len(images)):
                differing = int((bits[first] != other_bits[second]).sum())
                correlation = float(detail[first] @ other_detail[second])
                better = (first, second) not in best or correlation > best[first, second][1]
                if differing <= most_bits and correlation >= least_correlation and better:
                    best[first, second] = differing, correlation
    rows = [(*pair, *about) for pair, about in sorted(best.items())]
    return pd.DataFrame(rows, columns=COLUMNS)


# Found


@pytest.mark.parametrize(("turns", "mirrored"), ORIENTATIONS)
@pytest.mark.parametrize("side", [SIDE, 16, 21], ids="side {}".format)
def test_the_same_picture_is_found_in_all_eight_orientations(side, turns, mirrored):
    images = draw_textures(6, side)
    found = find_near_duplicates(np.concatenate([images, turn(images, turns, mirrored)]))
    assert found.columns.tolist() == COLUMNS
    assert get_pairs(found) == [(number, number + 6) for number in range(6)]
    assert found["bits"].tolist() == [0] * 6
    np.testing.assert_allclose(found["correlation"], 1, atol=1e-5)
    assert found.index.equals(pd.RangeIndex(6))


def test_all_orientations_of_one_picture_are_found_among_each_other():
    """Whatever turns one of them into another, and none of another picture."""
    images = np.concatenate([turn(draw_textures(2), *orientation) for orientation in ORIENTATIONS])
    expected = [(first, second) for first in range(16) for second in range(first + 2, 16, 2)]
    assert get_pairs(find_near_duplicates(images)) == expected


@pytest.mark.parametrize("quality", [95, 75, 40])
def test_pictures_that_were_encoded_again_are_found(quality):
    """As JPEG, at the full size; then the thumbnail is made."""
    large = draw_textures(12, 96)
    thumbnails = np.stack([shrink(image) for image in large])
    again = np.stack([shrink(encode(image, quality)) for image in large])
    assert (again != thumbnails).any(axis=(1, 2, 3)).all()
    found = find_near_duplicates(np.concatenate([thumbnails, turn(again, 1, True)]))
    assert get_pairs(found) == [(number, number + 12) for number in range(12)]
    assert found["correlation"].between(0.99, 0.99999).all()


@pytest.mark.parametrize(("gain", "offset"), [(1, 12), (1, -12), (0.9, 0), (1.1, 0), (0.9, 20)])
def test_pictures_that_were_made_brighter_or_darker_are_found(gain, offset):
    images = draw_textures(12)
    changed = np.clip(gain * images.astype(float) + offset, 0, 255).astype("uint8")
    found = find_near_duplicates(np.concatenate([images, turn(changed, 3, False)]))
    assert get_pairs(found) == [(number, number + 12) for number in range(12)]


def test_identical_images_are_found_once_each():
    """Three times the same: three pairs, the first position always before the second."""
    images = draw_textures(3)[[0, 1, 0, 2, 0, 1]]
    found = find_near_duplicates(images)
    assert get_pairs(found) == [(0, 2), (0, 4), (1, 5), (2, 4)]
    assert found["bits"].tolist() == [0] * 4
    np.testing.assert_allclose(found["correlation"], 1, atol=1e-5)


def test_a_picture_that_is_its_own_mirror_image_is_one_pair():
    """It is the same in four orientations."""
    quarter = draw_textures(1, 16)
    half = np.concatenate([quarter, quarter[:, ::-1]], axis=1)
    image = np.concatenate([half, half[:, :, ::-1]], axis=2)
    assert get_pairs(find_near_duplicates(image[[0, 0]])) == [(0, 1)]


@pytest.mark.parametrize("least_correlation", [-1, 0.2, 0.98])
@pytest.mark.parametrize("most_bits", [0, 6, 25, 63])
def test_pairs_are_those_of_a_plain_comparison_of_all(most_bits, least_correlation):
    base = draw_textures(7)
    blended = (0.8 * base[:4] + 0.2 * draw_textures(4, seed=1)).astype("uint8")  # alike, more or less
    images = np.concatenate([base, turn(blended, 1, True), turn(base[2:5], 3, False)])
    found, expected = (
        compare(images, most_bits, least_correlation) for compare in (find_near_duplicates, compare_by_hand)
    )
    pd.testing.assert_frame_equal(found, expected, atol=1e-5)
    if (most_bits, least_correlation) == (63, -1):
        assert len(found) == 14 * 13 / 2  # every pair


def test_the_defaults_are_six_bits_and_a_correlation_of_098():
    base = draw_textures(40)
    shares = np.linspace(0.02, 0.3, 40)[:, None, None, None]
    images = np.concatenate([base, ((1 - shares) * base + shares * draw_textures(40, seed=1)).astype("uint8")])
    pd.testing.assert_frame_equal(find_near_duplicates(images), find_near_duplicates(images, 6, 0.98))
    assert find_near_duplicates(images)["correlation"].between(0.98, 0.985).any()
    assert find_near_duplicates(images, least_correlation=0.9)["bits"].max() == 6
    more_bits, less_correlation = find_near_duplicates(images, 7, 0.9), find_near_duplicates(images, 6, 0.97)
    assert more_bits["bits"].max() == 7
    assert less_correlation["correlation"].between(0.97, 0.979).any()
    least = less_correlation["correlation"].min()
    pd.testing.assert_frame_equal(find_near_duplicates(images, 6, least), less_correlation)  # at least, not more than


# Not found


def test_unrelated_images_are_not_found():
    assert find_near_duplicates(draw_textures(60)).empty
    assert find_near_duplicates(np.random.default_rng(0).integers(0, 256, (60, SIDE, SIDE, 1), "uint8")).empty


def test_an_inverted_picture_is_another_one():
    images = draw_textures(4)
    assert find_near_duplicates(np.concatenate([images, 255 - images])).empty


@pytest.mark.parametrize("steepness", [0, 1])
def test_dark_ellipses_in_the_middle_with_another_texture_are_not_found(steepness):
    """As of two moles: by all pixels they correlate."""
    textures = 0.15 * (draw_textures(20, seed=3, steepness=steepness).astype(float) - 128)
    images = draw_spots(20, textures, centre=(0.5, 0.5))
    assert np.corrcoef(images.reshape(20, -1))[np.triu_indices(20, 1)].min() > 0.9
    assert find_near_duplicates(images).empty
    again = find_near_duplicates(np.concatenate([images, turn(images, 2, False)]))
    assert get_pairs(again) == [(number, number + 20) for number in range(20)]


def test_images_whose_hashes_agree_but_whose_fine_detail_does_not_are_not_found():
    """Soft spots at one place with fine noise: nearly the same image from afar, and in the lowest frequencies."""
    noise = np.random.default_rng(0).normal(0, 3, (15, SIDE, SIDE, 1))
    images = draw_spots(15, noise)
    alike = find_near_duplicates(images, most_bits=20, least_correlation=-1)
    assert len(alike) > 60
    assert np.corrcoef(images.reshape(15, -1))[np.triu_indices(15, 1)].min() > 0.98
    assert find_near_duplicates(images, most_bits=20).empty
    same = find_near_duplicates(np.concatenate([images, turn(images, 1, False)]), most_bits=20)
    assert get_pairs(same) == [(number, number + 15) for number in range(15)]


@pytest.mark.parametrize("side", [16, 30, SIDE, 33, 50])
def test_blank_images_have_no_detail_to_agree_in(side):
    """Neither with one another, whatever their level, nor with other images; and no correlation is NaN."""
    blank = np.stack([np.full((side, side, 1), level, "uint8") for level in (0, 0, 7, 100, 100, 128, 255)])
    assert find_near_duplicates(blank).empty
    textures = draw_textures(5, side)
    found = find_near_duplicates(np.concatenate([blank, textures, textures]))
    assert get_pairs(found) == [(number, number + 5) for number in range(7, 12)]
    everything = find_near_duplicates(np.concatenate([blank, textures]), 63, -1)
    assert len(everything) == 12 * 11 / 2
    assert everything.notna().all(axis=None)


@pytest.mark.parametrize(("share", "found"), [(0.12, True), (0.04, False)])
def test_detail_of_less_than_half_a_grey_level_is_none(share, found):
    """A few pixels are two levels lighter: 2 * sqrt(share * (1 - share)) is 0.65 or 0.39 levels."""
    faint = 100 + 2 * (np.random.default_rng(0).random((1, SIDE, SIDE, 1)) < share)
    assert (faint.std() > 0.5) == found
    assert len(find_near_duplicates(np.concatenate([faint, turn(faint, 1, True)]).astype("uint8"))) == found


# Positions


@pytest.mark.parametrize("agreeing", range(4))
@pytest.mark.parametrize("most_bits", [0, 1, 6, 11])
def test_blocks_of_bits_lose_no_pair(monkeypatch, most_bits, agreeing):
    """However many of them have to agree; half of the hashes are others with some bits changed."""
    rng = np.random.default_rng(most_bits)
    hashes = rng.integers(0, 2, (8, 400, 63)).astype(bool)
    hashes[:, 200:] = hashes[:, :200] ^ (rng.random((8, 200, 63)) < rng.choice([0, 0.05, 0.15], (200, 1)))
    hashes[..., :5] = True  # as pixels that are the same in all images
    packed = np.packbits(hashes, axis=-1).view("uint64")[..., 0]
    monkeypatch.setattr(duplicates, "comb", lambda _, number: abs(number - agreeing))
    index = duplicates._index_hashes(packed, np.ones(400, bool), most_bits)
    assert len(index.keys[0][0]) == agreeing
    found = np.concatenate([*duplicates._list_candidates(np.arange(400), index, most_bits)], axis=1)
    bits = np.bitwise_count(packed[0, :, None] ^ packed[:, None])  # orientation, first, second
    orientation, first, second = np.nonzero((bits <= most_bits) & np.tri(400, k=-1, dtype=bool).T)
    assert len(first) > 50
    expected = np.stack([first, second, bits[orientation, first, second], orientation])
    assert sorted(found.T.tolist()) == sorted(expected.T.tolist())  # each once


@pytest.mark.parametrize("level", [0, 128, 255])
def test_blank_images_take_no_time(capsys, level):
    """By all pairs they would be millions of candidates."""
    blank = np.full((3000, SIDE, SIDE, 1), level, "uint8")
    blank[[5, 2995]] = draw_textures(1)
    assert get_pairs(find_near_duplicates(blank)) == [(5, 2995)]
    assert capsys.readouterr().out == ""


def test_images_of_one_hash_are_bounded_and_of_one_group(capsys):
    """3,000 copies of one image, among others: a pair of them all would be 4.5 million pairs."""
    textures = draw_textures(20)
    images = np.concatenate([textures, np.repeat(turn(textures[:1], 1, False), 3000, axis=0)])
    found = find_near_duplicates(images)
    assert len(found) == 65 * 64 / 2 + 8 * 2936
    assert capsys.readouterr().out.startswith("2,936 images look like so many others")
    joined = join_groups(pd.DataFrame({"group": range(len(images))}), pairs=found)
    assert joined.tolist() == [*range(20), *[0] * 3000]
    at_most = find_near_duplicates(images[20:84])  # so many are no mass yet
    assert len(at_most) == 64 * 63 / 2
    assert capsys.readouterr().out == ""


def test_pairs_of_one_image_are_bounded(capsys):
    """200 images that show the same, with hashes of their own."""
    rng, images = np.random.default_rng(0), draw_textures(1, 16)[[0] * 200]
    images = np.clip(images + rng.normal(0, 4, images.shape), 0, 255).astype("uint8")
    found = find_near_duplicates(images, 20, 0.9)
    expected = [(first, second) for second in range(200) for first in range(min(second, 128))]
    assert get_pairs(found) == sorted(expected)
    assert capsys.readouterr().out.startswith("71 images look like so many others")


@pytest.mark.parametrize("at_a_time", [1, 7, 19, 1000])
def test_comparing_in_parts_changes_nothing(monkeypatch, at_a_time):
    images = draw_textures(25)[np.random.default_rng(1).integers(0, 25, 40)]
    images[20:] = turn(images[20:], 1, True)
    expected, everything = find_near_duplicates(images), find_near_duplicates(images, 30, -1)
    same = [(first, second) for first in range(40) for second in range(first + 1, 40)]
    groups = np.random.default_rng(1).integers(0, 25, 40)
    assert get_pairs(expected) == [(first, second) for first, second in same if groups[first] == groups[second]]
    for name in ("_IMAGES", "_TILE", "_COMPARISONS", "_PAIRS"):
        monkeypatch.setattr(duplicates, name, at_a_time)
    pd.testing.assert_frame_equal(find_near_duplicates(images), expected)
    pd.testing.assert_frame_equal(find_near_duplicates(images, 30, -1), everything)


def test_many_candidates_are_compared_in_parts():
    """5,050 pairs in each orientation."""
    images = draw_textures(101, 16)
    found = find_near_duplicates(images, 63, -1)
    assert get_pairs(found) == [(first, second) for first in range(101) for second in range(first + 1, 101)]
    some = [0, 40, 41, 100]
    among = found[found["first"].isin(some) & found["second"].isin(some)]
    expected = compare_by_hand(images[some], 63, -1)
    np.testing.assert_allclose(among["correlation"], expected["correlation"], atol=1e-5)


@pytest.mark.parametrize("count", [0, 1])
def test_of_no_or_one_image_there_are_no_pairs(count):
    found = find_near_duplicates(draw_textures(2)[:count])
    assert found.empty
    assert found.columns.tolist() == COLUMNS


def test_images_may_be_mapped_and_stay_as_they_are(tmp_path):
    images = draw_textures(4)[[0, 1, 2, 3, 1]]
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    pd.testing.assert_frame_equal(find_near_duplicates(mapped), find_near_duplicates(images))
    np.testing.assert_array_equal(images, np.load(tmp_path / "images.npy"))
    assert get_pairs(find_near_duplicates(mapped)) == [(1, 4)]


@pytest.mark.parametrize(
    ("shape", "complaint"),
    [
        ((5, 32, 32), r"\(5, 32, 32\): expected \(n, side, side, 1\)"),
        ((5, 32, 24, 1), r"\(5, 32, 24, 1\): expected \(n, side, side, 1\)"),
        ((5, 32, 32, 3), r"\(5, 32, 32, 3\): expected \(n, side, side, 1\)"),
        ((5, 32, 32, 1, 1), r"expected \(n, side, side, 1\)"),
        ((5, 15, 15, 1), r"15 pixels: expected at least 16"),
        ((0, 8, 8, 1), r"8 pixels: expected at least 16"),
    ],
    ids=str,
)
def test_other_shapes_are_refused(shape, complaint):
    with pytest.raises(ValueError, match=complaint):
        find_near_duplicates(np.zeros(shape, "uint8"))


# groups of images that look alike


def make_pairs(*pairs):
    return pd.DataFrame(pairs, columns=["first", "second"], dtype=int).assign(bits=0, correlation=1.0)


@pytest.mark.parametrize(
    ("pairs", "count", "clusters"),
    [
        ([], 3, ["0", "1", "2"]),
        ([(0, 1)], 2, ["01"]),
        ([(0, 2), (2, 5)], 6, ["025", "1", "3", "4"]),
        ([(0, 5), (2, 5)], 6, ["025", "1", "3", "4"]),  # linked by the last
        ([(0, 1), (2, 3), (1, 4)], 6, ["014", "23", "5"]),
        ([(0, 1), (0, 2), (1, 2)], 3, ["012"]),
        ([(0, 3), (1, 2), (2, 3)], 5, ["0123", "4"]),
    ],
)
def test_images_linked_by_several_pairs_are_one_group(pairs, count, clusters):
    table = pd.DataFrame({"group": [f"g{number}" for number in range(count)]})
    names = join_groups(table, pairs=make_pairs(*pairs))
    together = pd.Series(range(count)).astype(str).groupby(names).sum()
    assert sorted(together) == clusters


def test_pairs_join_groups():
    """Photographs of some patients; one was turned and filed under another patient, who has one of a third."""
    images = draw_textures(8)[[0, 1, 2, 3, 1, 4, 5, 3, 6]]
    images[4:] = turn(images[4:], 3, True)
    table = pd.DataFrame({"group": list("aabbccdde")}, index=range(90, 0, -10))  # 1 is a's and c's, 3 b's and d's
    joined = join_groups(table, pairs=find_near_duplicates(images))
    assert joined.tolist() == list("aabbaabbe")
    assert joined.index.equals(table.index)
    check_split(table.assign(group=joined), list("xxyyxxyyy"))
    with pytest.raises(ValueError, match="on two sides"):
        check_split(table.assign(group=joined), list("xxyyyyyyy"))


def test_without_near_duplicates_the_groups_stay():
    table = pd.DataFrame({"group": list("aabc")})
    pairs = find_near_duplicates(draw_textures(4))
    pd.testing.assert_series_equal(join_groups(table, pairs=pairs), table["group"])


# cropped and turned


def derive(image, change):
    """Crop the image, or turn it by 12 degrees with black corners, or mirror that; at its size again."""
    side = len(image)
    whole = Image.fromarray(image[..., 0])
    if change == "cropped":
        changed = whole.crop((0.05 * side, 0.1 * side, 0.85 * side, 0.9 * side)).resize((side, side))
    else:
        changed = whole.rotate(12, Image.Resampling.BILINEAR)
    pixels = np.asarray(changed)[..., None]
    return encode(pixels[:, ::-1] if change == "turned and mirrored" else pixels, 80)


@pytest.mark.parametrize(
    ("change", "scale", "angle"), [("cropped", 0.8, 0), ("turned", 1, -12), ("turned and mirrored", 1, -12)]
)
def test_cropped_and_turned_copies_are_found(change, scale, angle, tmp_path):
    images = draw_textures(8, 96)
    images = np.concatenate([images, np.stack([derive(image, change) for image in images[:4]])])
    found = find_derived_copies(images)
    assert get_pairs(found) == [(number, number + 8) for number in range(4)]
    assert found.columns.tolist() == ["first", "second", "scale", "angle", "mirrored", "correlation"]
    assert found["mirrored"].tolist() == [change == "turned and mirrored"] * 4
    np.testing.assert_allclose(found["scale"], scale, atol=0.03)
    np.testing.assert_allclose(found["angle"], angle, atol=1.5)
    assert found["correlation"].between(0.9, 1).all()
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    pd.testing.assert_frame_equal(find_derived_copies(mapped, neighbours=20), found)  # more than there are


def test_turned_copies_of_wide_images_are_found():
    """Images of 144 by 96 pixels are turned by 10 degrees; then all are made square, so that the turn has a shear."""
    wide = [Image.fromarray(image[..., 0]).resize((144, 96)) for image in draw_textures(6, 96)]
    wide += [image.rotate(10, Image.Resampling.BILINEAR) for image in wide[:3]]
    found = find_derived_copies(np.stack([np.asarray(image.resize((96, 96)))[..., None] for image in wide]))
    assert get_pairs(found) == [(0, 6), (1, 7), (2, 8)]
    assert (found["correlation"] > 0.97).all()
    np.testing.assert_allclose(found["angle"], -10, atol=3)


def test_the_first_image_may_be_the_copy():
    images = draw_textures(4, 96)
    found = find_derived_copies(np.concatenate([derive(images[0], "cropped")[None], images]))
    assert get_pairs(found) == [(0, 1)]
    np.testing.assert_allclose(found["scale"], 1 / 0.8, atol=0.03)


def test_given_candidates_are_the_only_ones():
    images = draw_textures(4, 96)
    images = np.concatenate([images, np.stack([derive(image, "turned and mirrored") for image in images])])
    found = find_derived_copies(images, candidates=pd.DataFrame({"first": [5, 0, 2], "second": [1, 4, 7]}))
    assert get_pairs(found) == [(0, 4), (1, 5)]


def test_identical_images_are_copies_too():
    """Two images have fewer different key points than there are words."""
    found = find_derived_copies(draw_textures(1, 96)[[0, 0]])
    np.testing.assert_allclose(
        found[["first", "second", "scale", "angle", "correlation"]], [[0, 1, 1, 0, 1]], atol=0.01
    )


def test_images_that_share_a_part_are_no_copies():
    """Their key points lie alike in two thirds of them."""
    images = draw_textures(2, 96)
    images[1, :, :64] = images[0, :, :64]
    assert find_derived_copies(images).empty
    assert find_derived_copies(images, least_correlation=0.3)["correlation"].between(0.3, 0.9).tolist() == [True]


def test_one_mole_is_not_a_copy_of_another():
    assert find_derived_copies(draw_spots(12, 0.3 * (draw_textures(12, 96) - 128.0), 96)).empty


@pytest.mark.parametrize("count", [0, 1, 3])
def test_images_without_detail_are_no_copies(count):
    found = find_derived_copies(np.full((count, 96, 96, 1), 90, "uint8"))
    assert found.empty
    assert (found["first"].dtype, found["mirrored"].dtype) == (int, bool)


@pytest.mark.parametrize("shape", [(5, 96, 96), (5, 96, 80, 1), (5, 96, 96, 3), (5, 63, 63, 1)], ids=str)
def test_copies_are_not_sought_in_other_shapes(shape):
    with pytest.raises(ValueError, match=r"expected \(n, side, side, 1\)|63 pixels: expected a side of at least 64"):
        find_derived_copies(np.zeros(shape, "uint8"))
