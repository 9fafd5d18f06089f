"""Opening a data set: what is joined, left out, limited, split and shown, on the samples and on tiny folders."""

import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.data import pixels
from helpers.data.audit import count_images, find_leaks
from helpers.data.catalog import list_data_sets
from helpers.data.opening import index_images, open_data_set
from helpers.data.pixels import compute_fingerprint
from helpers.files import InputError
from helpers.settings import read_settings


@pytest.fixture(scope="module")
def read(cache_with_samples):
    """Read settings that open the samples, or what is in a folder."""

    def read(**environment):
        given = {"DATA_SOURCE": "sample", "CACHE_DIR": str(cache_with_samples)} | environment
        return read_settings({name: str(value) for name, value in given.items()})

    return read


@pytest.fixture(scope="module")
def opened(read):
    """Open each sample once; not to be changed."""
    known = {}
    return lambda name: known.get(name) or known.setdefault(name, open_data_set(name, read()))


@pytest.fixture
def open_folder(tmp_path, read):
    """Write images of random grey levels into the folder of a data set, and open it."""

    def open_folder(name, paths, copies=None):
        rng = np.random.default_rng(0)
        for path in paths:
            place = tmp_path / "data" / name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (40, 40), "uint8")).save(place)
        for path, (source, change) in (copies or {}).items():
            with Image.open(tmp_path / "data" / name / source) as image:
                change(image).save(tmp_path / "data" / name / path)
        return open_data_set(name, read(DATA_SOURCE="local", DATA_DIR=tmp_path / "data", CACHE_DIR=tmp_path / "cache"))

    return open_folder


def name_chests(count=10):
    """Name so many images of each part and class: every patient has one."""
    for part in ("train", "test"):
        for number in range(1, count + 1):
            yield f"chest_xray/{part}/NORMAL/IM-{number:04d}-0001.png"
            yield f"chest_xray/{part}/PNEUMONIA/person{number}_virus_1.png"


LESIONS = [f"{part}/{label}/{n}.png" for part in ("train", "test") for label in ("Benign", "Malignant") for n in (1, 2)]


def keep(image):
    return image


def mirror(image):
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def crop(image):
    """Cut off a sixth of each side and scale what is left."""
    return image.resize((240, 240), Image.Resampling.BICUBIC).crop((40, 40, 200, 200))


def make_transparent(image):
    image.putalpha(0)
    return image


# Which data set


def test_an_unknown_name_lists_the_known_ones(read):
    with pytest.raises(InputError, match=r"No data set is called 'mnits'\. Known: mnist, ham10000, chest-xray, "):
        open_data_set("mnits", read())


def test_one_of_several_is_chosen(read):
    names = ("mnist", "melanoma-isic")
    assert open_data_set(names, read()).record.name == "mnist"
    assert open_data_set(names, read(DATA_SET="melanoma-isic")).record.name == "melanoma-isic"
    with pytest.raises(InputError, match="DATA_SET=plants: this notebook can use mnist, melanoma-isic"):
        open_data_set(names, read(DATA_SET="plants"))


# What is joined and left out


def test_without_a_rule_the_images_are_those_of_the_index(opened):
    mnist = opened("mnist")
    images, _ = index_images(mnist.record, mnist.source.folder)
    for table in (mnist.images, mnist.found):
        pd.testing.assert_frame_equal(table.drop(columns="code"), images)
    assert mnist.images is not mnist.found
    assert len(mnist.problems) == len(mnist.contradictory) == len(mnist.alike) == 0


def test_identical_files_are_joined(opened):
    chests = opened("chest-xray").found
    joined = chests[chests["group"] != chests["named_group"]]
    assert joined["image_id"].tolist() == ["train/NORMAL/IM-0131-0001"]
    assert joined["group"].tolist() == ["IM-0120"]
    assert opened("chest-xray").alike.empty


def test_images_that_only_look_alike_are_joined_where_the_record_says_so(open_folder):
    copies = {"train/Benign/8.png": ("train/Benign/1.png", mirror), "train/Benign/9.png": (LESIONS[0], keep)}
    lesions = open_folder("melanoma-isic", LESIONS, copies)
    groups = lesions.found.set_index("image_id")["group"]
    assert set(groups[groups.duplicated(keep=False)].index) == {f"train/Benign/{number}" for number in (1, 8, 9)}
    assert groups.nunique() == len(LESIONS)
    assert lesions.alike[["first", "second", "identical", "named"]].to_numpy().tolist() == [
        ["train/Benign/1", "train/Benign/8", False, False],
        ["train/Benign/1", "train/Benign/9", True, False],
        ["train/Benign/8", "train/Benign/9", False, False],
    ]


def test_cropped_copies_are_joined_where_the_record_says_so(open_folder):
    lesions = open_folder("melanoma-isic", LESIONS, {"train/Benign/8.png": ("test/Benign/1.png", crop)})
    assert lesions.alike[["first", "second", "identical"]].to_numpy().tolist() == [
        ["train/Benign/8", "test/Benign/1", False]
    ]
    assert lesions.alike["bits"].isna().all()  # no hash tells
    assert find_leaks(lesions.found, lesions.found["part"])["leaked"].tolist() == [1, 1]


def test_near_duplicates_are_not_joined_where_only_identical_files_are(open_folder):
    copies = {"chest_xray/train/NORMAL/IM-0099-0001.png": ("chest_xray/train/NORMAL/IM-0001-0001.png", mirror)}
    chests = open_folder("chest-xray", name_chests(), copies)
    assert chests.found["group"].is_unique
    assert chests.alike.empty


def test_images_of_other_parts_that_leak_into_the_kept_part_are_left_out(open_folder):
    copies = {"chest_xray/train/NORMAL/IM-0099-0001.png": ("chest_xray/test/NORMAL/IM-0001-0001.png", keep)}
    chests = open_folder("chest-xray", name_chests(), copies)
    assert chests.record.kept_part == "test"
    assert "train/NORMAL/IM-0099-0001" not in set(chests.found["image_id"])
    assert chests.found["part"].value_counts().to_dict() == {"train": 20, "test": 20}
    (problem,) = chests.problems.to_dict("records")
    assert problem["problem"] == "its group is also in test"
    assert problem["image_id"] == "train/NORMAL/IM-0099-0001"


def test_many_contradictions_between_identical_files_are_refused(open_folder):
    normal, sick = ("chest_xray/train/NORMAL/IM-{:04d}-0001.png", "chest_xray/train/PNEUMONIA/person{}_virus_1.png")
    copies = {normal.format(number): (sick.format(number), keep) for number in (1, 2, 3)}
    with pytest.raises(InputError, match=r"15\.0% of the images cannot be used"):
        open_folder("chest-xray", name_chests(), copies)


def test_contradictory_images_are_kept_for_showing(open_folder):
    copies = {"train/Malignant/9.png": ("train/Benign/1.png", mirror)}
    lesions = open_folder("melanoma-isic", LESIONS, copies)
    assert lesions.contradictory["image_id"].tolist() == ["train/Benign/1", "train/Malignant/9"]
    assert lesions.contradictory["label"].tolist() == ["benign", "malignant"]
    assert lesions.contradictory["code"].tolist() == ["Benign", "Malignant"]
    assert not set(lesions.contradictory["image_id"]) & set(lesions.found["image_id"])
    assert lesions.problems["problem"].tolist() == ["its group train/Benign/1 is in Benign and Malignant"] * 2
    assert len(lesions.read_images(lesions.contradictory, (8, 8, 3))) == 2


def test_the_samples_of_lesions_have_two_contradictory_pairs(opened):
    lesions = opened("melanoma-isic")
    assert len(lesions.contradictory) == 4
    assert lesions.contradictory.groupby("group")["label"].nunique().tolist() == [2, 2]
    assert set(lesions.problems["image_id"]) == set(lesions.contradictory["image_id"])


def test_pairs_are_named_by_their_images_and_told_from_identical_files(opened):
    lesions = opened("melanoma-isic")
    pairs = lesions.alike
    assert pairs.columns.tolist() == ["first", "second", "bits", "correlation", "identical", "named"]
    known = set(lesions.found["image_id"]) | set(lesions.contradictory["image_id"])
    assert set(pairs["first"]) | set(pairs["second"]) <= known
    assert pairs["identical"].sum() == 5
    assert not pairs["named"].any()
    kept = pairs[pairs["first"].isin(lesions.found["image_id"])]
    groups = lesions.found.set_index("image_id")["group"]
    assert len(kept) > 20
    assert (groups[kept["first"]].to_numpy() == groups[kept["second"]].to_numpy()).all()


def test_pairs_of_one_leaf_are_named_so_by_their_files(opened):
    plants = opened("plants")
    named = plants.found.set_index("image_id")["named_group"]
    pairs = plants.alike
    same = named.reindex(pairs["first"]).to_numpy() == named.reindex(pairs["second"]).to_numpy()
    assert pairs["named"].mean() > 0.9
    assert pairs["named"].tolist() == same.tolist()


def test_unreadable_images_are_listed(tmp_path, open_folder):
    place = tmp_path / "data" / "chest-xray" / "chest_xray" / "train" / "NORMAL"
    place.mkdir(parents=True)
    (place / "IM-0099-0001.png").write_bytes(b"no image")
    chests = open_folder("chest-xray", name_chests())
    assert chests.problems["image_id"].tolist() == ["train/NORMAL/IM-0099-0001"]
    assert len(chests.found) == 40
    assert {"width", "height", "mode", "red", "green", "blue"} <= set(chests.found)


# Limits


def test_most_limits_each_part(read, opened):
    few = open_data_set("chest-xray", read(), most=100)
    assert len(few.found) == len(opened("chest-xray").found)
    counts = few.images["part"].value_counts()
    assert counts["val"] == 16
    assert counts[["train", "test"]].between(90, 110).all()
    assert few.images.index.equals(pd.RangeIndex(len(few.images)))
    rest = set(few.found["image_id"]) - set(few.images["image_id"])
    assert not set(few.found.set_index("image_id").loc[list(rest), "group"]) & set(few.images["group"])


def test_all_images_can_be_one_part_and_groups_divided(read):
    few = open_data_set("plants", read(), most=150, limit_by=None, whole_groups=False)
    assert 140 <= len(few.images) <= 160
    assert few.images["label"].nunique() == 12


# Splitting


@pytest.fixture
def lesions(read):
    return open_data_set("melanoma-isic", read())


def test_splitting_twice_gives_the_same(lesions):
    counts = lesions.split_images(0.2, 0.15)
    first = lesions.images.copy()
    pd.testing.assert_frame_equal(lesions.split_images(0.2, 0.15), counts)
    pd.testing.assert_frame_equal(lesions.images, first)
    assert counts.index.tolist() == ["train", "validation", "test", "all"]
    pd.testing.assert_frame_equal(counts, count_images(first, by=("split", "label")).loc[counts.index])
    shares = first["split"].value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.15, abs=0.02)
    assert shares["validation"] == pytest.approx(0.85 * 0.2, abs=0.02)
    assert find_leaks(first, first["split"])["leaked"].tolist() == [0, 0, 0]
    assert "split" not in lesions.found


def test_a_shipped_part_can_be_the_test_set(read):
    chests = open_data_set("chest-xray", read())
    chests.split_images(0.2)
    assert ((chests.images["split"] == "test") == (chests.images["part"] == "test")).all()
    with pytest.raises(InputError, match=r"There is no part 'tset': expected train, val, test\."):
        chests.split_images(0.2, "tset")


def test_images_that_are_in_the_shipped_test_set_too_become_a_set_of_their_own(lesions):
    counts = lesions.split_images(0.2, leaked="copies")
    images = lesions.images
    assert counts.index.tolist() == ["train", "validation", "test", "copies", "all"]
    in_test = images["part"] == "test"
    assert ((images["split"] == "test") == in_test).all()
    is_copy = images["group"].isin(images.loc[in_test, "group"]) & ~in_test
    assert is_copy.sum() > 5
    assert ((images["split"] == "copies") == is_copy).all()
    clean = images[~is_copy]
    assert find_leaks(clean, clean["split"])["leaked"].tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="Groups on two sides of the split"):
        lesions.split_images(0.2)


def test_a_group_on_two_sides_is_refused(lesions, monkeypatch):
    def divide(images, fractions, seed):
        return pd.Series(np.resize(list(fractions), len(images)), images.index)

    monkeypatch.setattr("helpers.data.opening.split.split_by_group", divide)
    with pytest.raises(ValueError, match="Groups on two sides of the split"):
        lesions.split_images(0.2, 0.15)


def test_a_set_without_a_class_is_refused(lesions):
    lesions.images = lesions.images[lesions.images["label"] != "benign"]
    with pytest.raises(InputError, match=r": train has no image of benign; validation has no image of benign; test"):
        lesions.split_images(0.2, 0.15)


def test_rows_are_positions(lesions):
    with pytest.raises(InputError, match=r"There is no set 'train': there are none\. Call split_images first\."):
        lesions.rows("train")
    lesions.split_images(0.2, 0.15)
    rows = [lesions.rows(name) for name in ("train", "validation", "test")]
    assert sorted(np.concatenate(rows)) == list(range(len(lesions.images)))
    assert set(lesions.images["split"].iloc[rows[1]]) == {"validation"}
    with pytest.raises(InputError, match="There is no set 'val': there are test, train, validation"):
        lesions.rows("val")


# Labels and pixels


def test_unlabelled_images_get_labels_that_are_nan(opened):
    cells = opened("leukemia")
    unlabelled = (cells.images["part"] == "testing_data").to_numpy()
    y = cells.encode_labels()
    assert y.dtype == np.float32
    assert y.shape == (610, 2)
    assert np.isnan(y[unlabelled]).all()
    assert y[~unlabelled, 1].tolist() == (cells.images["label"][~unlabelled] == "leukemic").astype(float).tolist()
    assert (y[~unlabelled].sum(axis=1) == 1).all()
    np.testing.assert_array_equal(cells.encode_labels([609, 3]), y[[609, 3]])


@pytest.mark.parametrize("record", list_data_sets(), ids=lambda record: record.name)
def test_classes_have_readable_names_in_the_order_of_the_record(opened, record):
    """The names that the files have stay beside them."""
    data = opened(record.name)
    for table in (data.found, data.images, data.contradictory):
        labelled = table[table["code"].notna()]
        assert labelled["label"].tolist() == [record.class_labels[code] for code in labelled["code"]]
        assert table["label"].isna().equals(table["code"].isna())
    there = set(data.found["code"].dropna())
    assert there <= set(record.class_names)
    assert data.class_names == tuple(record.class_labels[code] for code in record.class_names if code in there)
    assert data.encode_labels().shape == (len(data.images), len(data.class_names))


def test_classes_that_a_copy_lacks_are_left_out_where_it_may_lack_them(opened):
    """The crops come in alphabetical order, but their healthy leaves last."""
    plants, mnist = opened("plants"), opened("mnist")
    assert len(plants.class_names) == 12 < len(plants.record.class_names)
    expected = "cherry: healthy", "corn: healthy", "tomato: leaf mold", "tomato: healthy"
    codes = "Tomato___healthy", "Tomato___Leaf_Mold", "Corn_(maize)___healthy", "Cherry_(including_sour)___healthy"
    found = pd.DataFrame({"label": [plants.record.class_labels[code] for code in codes]})
    assert dataclasses.replace(plants, found=found).class_names == expected
    without_threes = mnist.found[mnist.found["label"] != "3"]
    assert dataclasses.replace(mnist, found=without_threes).class_names == tuple("0123456789")


def test_pixels_and_images_are_the_same(opened):
    cells = opened("leukemia")
    pixels = cells.load_pixels((24, 20, 3))
    assert pixels.shape == (610, 24, 20, 3)
    np.testing.assert_array_equal(cells.read_images(cells.images.iloc[[7, 2]], (24, 20, 3)), pixels[[7, 2]])


def test_warnings_of_pillow_are_not_shown(opened, monkeypatch):
    cells = opened("leukemia")
    read_image = pixels.read_image

    def warn(*args):
        warnings.warn_explicit("Corrupt EXIF data", UserWarning, "Image.py", 1, module="PIL.Image")
        return read_image(*args)

    monkeypatch.setattr(pixels, "read_image", warn)
    assert len(cells.read_images(cells.images.iloc[:1], (24, 20, 3))) == 1


def test_transparent_images_are_laid_on_the_background_of_the_record(tmp_path, open_folder):
    lesions = open_folder("melanoma-isic", LESIONS, {LESIONS[0]: (LESIONS[1], make_transparent)})
    assert not {"note", "error"} & set(lesions.images)
    assert (lesions.load_pixels((8, 8, 3))[0] == 255).all()
    assert (lesions.read_images(lesions.images[:1], (8, 8, 3))[0] == 255).all()
    cells = open_data_set(dataclasses.replace(lesions.record, background=0), lesions.settings)
    assert cells.found["red"][0] == 0 != lesions.found["red"][0]
    assert (cells.load_pixels((8, 8, 3))[0] == 0).all()
    assert (cells.read_images(cells.images[:1], (8, 8, 3))[0] == 0).all()


# What it tells of itself


def test_the_summary_is_for_the_results(opened):
    cells, mnist = opened("leukemia"), opened("mnist")
    assert cells.summarize() == {
        "images": 610,
        "groups": 15,
        "classes": 2,
        "source": "sample",
        "stored_size": "72x72",
        "fingerprint": compute_fingerprint(cells.images, cells.source.folder),
    }
    assert "stored_size" not in mnist.summarize()


def test_a_notebook_shows_what_it_is(read, opened):
    lesions = opened("melanoma-isic")
    shown, groups = lesions._repr_markdown_(), lesions.found["group"].nunique()
    for part in (
        "**Melanoma cancer image dataset** (sample). Real images would be read from DATA_DIR/melanoma-isic.",
        "- Task: Is the skin lesion benign or malignant?",
        f"- {len(lesions.found)} images in {groups} groups and 2 classes can be used; 4 problems",
        "- Has to stay together in a split: images that look alike",
        "- Augmentation that leaves the label true: any rotation",
        "- Source: Kaggle, bhaveshmittal, Melanoma cancer image dataset; from the ISIC archive; ISIC archive: CC0",
    ):
        assert part in shown
    few = open_data_set("melanoma-isic", read(), most=50)
    assert f"can be used, of which {len(few.images)} are used here; 4 problems" in few._repr_markdown_()
