"""Cleaning: what stands for "not known" is missing afterwards, counted, and nothing else is touched."""

import numpy as np
import pandas as pd
import pytest

from helpers.data.clean import mark_unknown


@pytest.fixture
def images():
    return pd.DataFrame(
        {
            "image_id": ["i1", "i2", "i3", "i4", "i5"],
            "age": [0.0, 50.0, np.nan, 0.0, 85.0],
            "sex": ["male", "unknown", "female", "unknown", None],
            "localization": ["back", "unknown", "", "0", "face"],
        },
        index=[3, 1, 4, 9, 5],
    )


def test_unknown_values_are_missing_afterwards(images):
    cleaned, steps = mark_unknown(images, {"age": [0], "sex": ["unknown"]})
    np.testing.assert_array_equal(cleaned["age"], [np.nan, 50, np.nan, np.nan, 85])
    assert cleaned["sex"].isna().tolist() == [False, True, False, True, True]
    assert cleaned["sex"].dropna().tolist() == ["male", "female"]
    assert steps.to_dict("records") == [
        {"column": "age", "step": "missing or unreadable", "rows": 1},
        {"column": "age", "step": "0 taken as missing", "rows": 2},
        {"column": "sex", "step": "missing or unreadable", "rows": 1},
        {"column": "sex", "step": "'unknown' taken as missing", "rows": 2},
    ]


def test_counts_are_those_of_the_values_that_went_missing(images):
    unknown = {"age": [0, 200], "sex": ["unknown"], "localization": ["unknown", "", "0"]}
    cleaned, steps = mark_unknown(images, unknown)
    assert steps.groupby("column")["rows"].sum().to_dict() == cleaned[list(unknown)].isna().sum().to_dict()
    assert steps.set_index("step").loc["200 taken as missing", "rows"] == 0


def test_other_columns_rows_and_the_given_table_stay_as_they_were(images):
    before = images.copy()
    cleaned, _ = mark_unknown(images, {"age": [0]})
    pd.testing.assert_frame_equal(images, before)
    pd.testing.assert_frame_equal(cleaned.drop(columns="age"), before.drop(columns="age"))
    assert cleaned["age"].dtype == "float64"


def test_a_number_is_not_taken_for_a_text_that_looks_like_it(images):
    cleaned, _ = mark_unknown(images, {"localization": [0]})
    assert cleaned["localization"].tolist() == images["localization"].tolist()


def test_a_column_that_is_missing_altogether(images):
    cleaned, steps = mark_unknown(images.assign(age=np.nan), {"age": [0]})
    assert cleaned["age"].isna().all()
    assert steps["rows"].tolist() == [5, 0]


def test_nothing_to_do(images):
    cleaned, steps = mark_unknown(images, {})
    pd.testing.assert_frame_equal(cleaned, images)
    assert steps.empty
