"""Tables as spreadsheets and other programs save them: read, or refused with what is wrong with them."""

import numpy as np
import pandas as pd
import pytest

from helpers.data.layouts.tables import read_metadata, strip_ending
from helpers.files import InputError

NEEDED = ["lesion_id", "Image_ID", "dx"]
HEAD = "lesion_id,Image_ID,dx,age,sex"
TEXT = f"{HEAD}\nH1,I1,nv,40.5,male\nH2,I2,mel,,female\nH3,I3,bkl,70.0,\n"


@pytest.fixture
def read(tmp_path):
    """Return a function that writes a table and reads it."""

    def read(content):
        (tmp_path / "table.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_metadata(tmp_path / "table.csv", NEEDED)

    return read


def split_with(separator):
    return TEXT.replace(",", separator)


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        split_with("\t").encode("utf-16"),
        split_with(";"),
        split_with("\t"),
        split_with(", "),
        split_with(" ; "),
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("\n", "\r"),
        split_with("|"),
        "sep=;\n" + split_with(";"),
        ("SEP=,\r\n" + TEXT).encode("utf-8-sig"),
        TEXT + ",,,,\n , ,,\n,,,,,,,\n",
        "\n" + TEXT.replace("\n", "\n\n"),
        "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in TEXT.splitlines()),
        TEXT.replace(HEAD, HEAD.upper()),
        TEXT.replace(HEAD, " Lesion ID ,image-id,DX, Age,Sex"),
        TEXT.replace("H3,I3,bkl,70.0,\n", "H3,I3,bkl,70.0"),
    ],
)
def test_the_same_table_from_many_programs(read, content):
    table = read(content)
    assert table.columns.tolist() == [*HEAD.split(","), "metadata_row", "line"]
    assert table["metadata_row"].tolist() == [0, 1, 2]
    assert table["Image_ID"].tolist() == ["I1", "I2", "I3"]
    assert table["dx"].tolist() == ["nv", "mel", "bkl"]
    assert table["age"].fillna("none").tolist() == ["40.5", "none", "70.0"]
    assert table["sex"].fillna("none").tolist() == ["male", "female", "none"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_letters_beyond_ascii(read, encoding):
    assert (
        read(TEXT.replace("male", "männlich – ♂"[: None if encoding.startswith("utf") else 10]).encode(encoding))["sex"]
        .iloc[0]
        .startswith("männlich –")
    )


@pytest.mark.parametrize(
    ("content", "rows", "lines"),
    [
        (TEXT, [0, 1, 2], [2, 3, 4]),
        (f"sep=,\n\n{TEXT}", [0, 1, 2], [4, 5, 6]),
        (TEXT.replace("\nH2", "\n\n,,,,\nH2"), [0, 2, 3], [2, 5, 6]),
        (TEXT.replace("male\n", '"male\nor not"\n', 1), [0, 1, 2], [3, 4, 5]),
    ],
)
def test_rows_and_lines_are_those_of_the_file(read, content, rows, lines):
    table = read(content)
    assert table["metadata_row"].tolist() == rows
    assert table["line"].tolist() == lines


def test_decimal_commas(read):
    expected = ["40,5", np.nan, "70,0"]
    assert read(split_with(";").replace(".", ","))["age"].fillna("").tolist() == ["40,5", "", "70,0"]
    quoted = TEXT.replace("40.5", '"40,5"').replace("70.0", '"70,0"')
    pd.testing.assert_series_equal(read(quoted)["age"], pd.Series(expected, name="age", dtype="str"))


def test_a_column_of_row_numbers_without_a_name(read):
    lines = TEXT.splitlines()
    table = read("\n".join([f",{lines[0]}", *(f"{number},{line}" for number, line in enumerate(lines[1:]))]))
    assert table["lesion_id"].tolist() == ["H1", "H2", "H3"]
    with pytest.raises(InputError, match="it has lesion_id, age, sex "):
        read("\n".join([f",{lines[0].replace('Image_ID', '').replace('dx', '')}", *lines[1:]]))


@pytest.mark.parametrize(
    ("row", "cells"),
    [
        ("H2,I2,nv,40,5,male", 6),  # a decimal comma
        ("H2,I2,nv,40,male,", 6),
        ("H2,I2", 2),
        ("H2", 1),
    ],
)
@pytest.mark.parametrize("position", [1, 2, 3, 4])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_longer_and_shorter_rows_are_named(tmp_path, read, row, cells, position, separator):
    """The first row too, from which pandas would make a column of row names."""
    lines = TEXT.splitlines()
    with pytest.raises(InputError) as caught:
        read("\n".join([*lines[:position], "", row, *lines[position:]]).replace(",", separator))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'table.csv'}, line {position + 2}: {cells} cells, expected 5")
    assert f"separator: {({',': 'comma', ';': 'semicolon'}).get(separator, 'tab')})" in message


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        (
            "lesion,Image_ID,dx,age,sex",
            "has no column lesion_id; it has lesion, Image_ID, dx, age, sex (separator: comma)",
        ),
        ("a,b,c,d,e", "has no column lesion_id, Image_ID, dx; it has a, b, c, d, e "),
        (HEAD.replace(",", ":"), "has no column lesion_id, Image_ID, dx; it has lesion_id:image_id:dx:age:sex "),
        ("lesion_id,Image_ID,dx,age,DX", "has two columns dx; it has lesion_id, Image_ID, dx, age, dx "),
        ("lesion_id,Image_ID,dx,age,Image ID", "has two columns Image_ID"),
    ],
)
def test_columns_that_are_missing_or_there_twice(tmp_path, read, head, problem):
    with pytest.raises(InputError) as caught:
        read(TEXT.replace(HEAD, head))
    assert str(caught.value).startswith(f"{tmp_path / 'table.csv'} {problem}")


def test_a_further_column_that_is_there_twice(read):
    table = read(TEXT.replace(HEAD, "lesion_id,Image_ID,dx,age,Age"))
    assert table["age"].iloc[0] == "40.5"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is empty"),
        (b"\n \n", "it is empty"),
        (b"sep=;\n", "it is empty"),
        (b"PK\3\4" + bytes(range(256)), "save it as CSV"),
        (b"\xd0\xcf\x11\xe0" + bytes(500), "save it as CSV"),
        (TEXT.encode("utf-16")[2:], "it is no text"),
        (b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4, "table.csv"),
        (TEXT.encode("utf-16")[:-1], "it is no text"),
        (f'{HEAD}\n"H1,I1,nv,,\n', "(line 2: unexpected end of data)"),
        (f'{HEAD}\n\nH1,I1,nv,,\n"H2"x,I2,nv,,\n', "(line 4: "),
        (f'{HEAD}\nH1,I1,nv,,"{"x" * 200_000}"\n', "table.csv"),
    ],
)
def test_no_tables(tmp_path, read, content, problem):
    with pytest.raises(InputError) as caught:
        read(content)
    assert str(caught.value).startswith(f"{tmp_path / 'table.csv'} cannot be read as a table with one row per image (")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ISIC_1.jpg", "ISIC_1"), ("a/ISIC_1.JPG", "ISIC_1"), ("ISIC_1", "ISIC_1"), ("v1.2", "v1.2"), (".jpg", ".jpg")],
)
def test_endings_of_images(name, expected):
    assert strip_ending(name) == expected
