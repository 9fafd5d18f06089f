"""Images from a table with one row per image: the right pixels of the right rows, or a refusal that says why."""

import numpy as np
import pandas as pd
import pytest

from helpers.data.pixels import read_pixel_table
from helpers.files import InputError

SHAPE = (3, 4, 3)
CLASSES = ("nv", "mel", "bkl")


@pytest.fixture
def pixels():
    return np.random.default_rng(4).integers(0, 256, (6, *SHAPE), "uint8")


@pytest.fixture
def images():
    """Five of the table's six images, in another order."""
    return pd.DataFrame({"metadata_row": [0, 5, 2, 3, 1], "code": ["nv", "mel", "bkl", "nv", "mel"]})


@pytest.fixture
def table(pixels):
    flat = pd.DataFrame(pixels.reshape(6, -1)).add_prefix("pixel")
    return flat.assign(label=[0, 1, 2, 0, 0, 1])


@pytest.fixture
def read(tmp_path, images):
    """Return a function that writes a table and reads the images from it."""

    def read(table, images=images):
        table.to_csv(tmp_path / "table.csv", index=False)
        return read_pixel_table(tmp_path / "table.csv", images, CLASSES, SHAPE)

    return read


def test_each_image_gets_the_pixels_of_its_row(read, table, pixels):
    found = read(table)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels[[0, 5, 2, 3, 1]])
    np.testing.assert_array_equal(read(table[["label", *table.columns[:-1]]]), found)  # wherever the label stands


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_as_other_programs_save_them(tmp_path, table, images, pixels, separator, encoding):
    table.to_csv(tmp_path / "table.csv", index=False, sep=separator, encoding=encoding)
    found = read_pixel_table(tmp_path / "table.csv", images, CLASSES, SHAPE)
    np.testing.assert_array_equal(found, pixels[[0, 5, 2, 3, 1]])


@pytest.mark.parametrize("longer", [[1], [4], [1, 2, 3, 4, 5, 6]], ids=["first", "fourth", "all"])
@pytest.mark.parametrize("end", [",", ",0"])
def test_rows_that_are_longer_than_the_head(tmp_path, table, images, longer, end):
    lines = table.to_csv(index=False).splitlines()
    for number in longer:
        lines[number] += end
    (tmp_path / "table.csv").write_text("\n".join(lines))
    with pytest.raises(InputError, match="cannot be read as a table of pixels"):
        read_pixel_table(tmp_path / "table.csv", images, CLASSES, SHAPE)


def test_a_row_that_is_shorter_than_the_head(tmp_path, table, images):
    (tmp_path / "table.csv").write_text(table.to_csv(index=False).rstrip()[:-2])
    with pytest.raises(InputError, match="cannot be read as a table of pixels"):
        read_pixel_table(tmp_path / "table.csv", images, CLASSES, SHAPE)


def test_rows_follow_metadata_row_not_the_index(read, table, images, pixels):
    chosen = images.set_index(np.array([9, 3, 7, 1, 5])).iloc[[4, 0]]
    np.testing.assert_array_equal(read(table, chosen), pixels[[1, 0]])


def assert_refused(tmp_path, read, table, *expected):
    with pytest.raises(InputError) as caught:
        read(table)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "table.csv"))
    for text in (*expected, "Fetch the original again, or resize the images instead"):
        assert text in message, message


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda table: table.drop(columns="label"), "36 columns and 6 rows"),
        (lambda table: table.drop(columns="pixel7"), "36 columns and 6 rows"),
        (lambda table: table.assign(pixel36=0), "38 columns and 6 rows"),
        (lambda table: table.rename(columns={"label": "dx"}), "37 columns and 6 rows"),
        (lambda table: table.head(5), "37 columns and 5 rows"),
        (lambda table: table.head(0), "37 columns and 0 rows"),
    ],
    ids=["no label", "pixel missing", "pixel more", "label renamed", "rows missing", "no rows"],
)
def test_other_columns_and_too_few_rows(tmp_path, read, table, change, found):
    assert_refused(tmp_path, read, change(table), found, "expected 36 pixels and label", "at least 6")


def test_labels_of_another_edition(tmp_path, read, table):
    table.loc[[3, 5], "label"] = 2
    assert_refused(tmp_path, read, table, "labels of 2 rows", "the first in row 5", "not of the same edition")


def test_rows_shifted_by_one(tmp_path, read, table):
    shifted = table.iloc[[5, 0, 1, 2, 3, 4]]
    assert_refused(tmp_path, read, shifted, "not those of the metadata")


def test_the_order_of_the_class_codes_matters(tmp_path, table, images):
    table.to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(InputError, match="labels of 3 rows"):
        read_pixel_table(tmp_path / "table.csv", images, ("nv", "bkl", "mel"), SHAPE)


def test_label_of_a_class_without_code(tmp_path, read, table, images):
    images.loc[2, "code"] = "vasc"
    assert_refused(tmp_path, read, table, "labels of 1 rows", "the first in row 2")


@pytest.mark.parametrize("value", ["256", "300", "-1", "1000000", "99999999999999999999", "1.5", "", "x", "nan"])
@pytest.mark.parametrize("column", ["pixel20", "label"])
def test_values_that_are_no_pixels(tmp_path, read, table, value, column):
    table = table.astype(object)
    table.loc[4, column] = value  # in a row that no image uses, so that only its value can be at fault
    assert_refused(tmp_path, read, table, "cannot be read as a table of pixels from 0 to 255")


def test_a_wrong_value_far_down_a_long_table(tmp_path):
    """Long tables are read in pieces."""
    values = np.full((60_000, 13), 7)
    values[59_000, 5] = 256
    table = pd.DataFrame(values).rename(columns={12: "label"})
    table.to_csv(tmp_path / "table.csv", index=False)
    images = pd.DataFrame({"metadata_row": [59_999], "code": ["nv"]})
    with pytest.raises(InputError, match="cannot be read as a table of pixels"):
        read_pixel_table(tmp_path / "table.csv", images, ["nv"], (2, 2, 3))


@pytest.mark.parametrize("content", [None, b"", b"<html>404 Not Found</html>\n", bytes(300)])
def test_no_table(tmp_path, images, content):
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_pixel_table(path, images, CLASSES, SHAPE)
    assert str(caught.value).startswith(str(path))
