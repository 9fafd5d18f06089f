"""Images that cannot be used: a few are left out and listed, too many stop the run."""

import pandas as pd
import pytest

from helpers.data.audit import leave_out_unusable
from helpers.data.opening import LEFT_OUT, PROBLEM_COLUMNS
from helpers.files import InputError

NONE = pd.DataFrame(columns=PROBLEM_COLUMNS)


def make_images(count):
    names = [f"ISIC_{number:03d}" for number in range(count)]
    paths = [f"part/{name}.jpg" for name in names]
    return pd.DataFrame({"image_id": names, "path": paths, "label": "nv", "group": names})


def make_measured(count, damaged):
    modes = [None if number in damaged else "L" for number in range(count)]
    errors = ["truncated" if number in damaged else "" for number in range(count)]
    return pd.DataFrame({"mode": modes, "note": "", "error": errors})


def make_problems(image_ids, action=LEFT_OUT):
    rows = [{"file": f"{name}.jpg", "problem": "is odd", "action": action, "image_id": name} for name in image_ids]
    return pd.DataFrame(rows, columns=PROBLEM_COLUMNS)


def test_damaged_images_are_left_out_and_listed():
    images = make_images(100)
    kept, problems = leave_out_unusable(images, NONE, make_measured(100, [0, 50, 99]))
    expected = images.drop(index=[0, 50, 99]).reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, expected)
    assert kept.index.equals(pd.RangeIndex(97))
    assert problems.columns.tolist() == PROBLEM_COLUMNS
    assert problems.index.equals(pd.RangeIndex(3))
    assert problems.iloc[1].to_dict() == {
        "file": "part/ISIC_050.jpg",
        "problem": "cannot be read: truncated",
        "action": LEFT_OUT,
        "image_id": "ISIC_050",
    }


def test_problems_of_the_index_are_kept_in_front():
    found = make_problems(["a", "b"])
    kept, problems = leave_out_unusable(make_images(200), found, make_measured(200, [7]))
    assert problems["image_id"].tolist() == ["a", "b", "ISIC_007"]
    pd.testing.assert_frame_equal(problems.head(2), found)
    assert len(kept) == 199


def test_without_measures_and_without_problems_nothing_changes():
    images = make_images(5)
    kept, problems = leave_out_unusable(images, NONE)
    pd.testing.assert_frame_equal(kept, images)
    assert problems.empty
    kept, problems = leave_out_unusable(images, NONE, make_measured(5, []))
    pd.testing.assert_frame_equal(kept, images)
    assert problems.empty


@pytest.mark.parametrize(("damaged", "listed"), [(5, 0), (3, 2), (0, 5)])
def test_five_percent_pass_and_one_more_does_not(damaged, listed):
    found = make_problems([f"x{number}" for number in range(listed)])
    images, measured = make_images(100 - listed), make_measured(100 - listed, range(damaged))
    kept, problems = leave_out_unusable(images, found, measured)
    assert (len(kept), len(problems)) == (95, 5)
    one_more = make_problems([*found["image_id"], "one more"])
    with pytest.raises(InputError, match=r"^5\.9% of the images cannot be used, more than the 5%"):
        leave_out_unusable(images, one_more, measured)  # 6 of 101


def test_the_message_holds_the_table():
    with pytest.raises(InputError) as caught:
        leave_out_unusable(make_images(20), make_problems(["listed"]), make_measured(20, [3]))
    message = str(caught.value)
    assert message.startswith("9.5% of the images cannot be used")
    for text in ("\nlisted.jpg: is odd (", "\npart/ISIC_003.jpg: cannot be read: truncated (left out)"):
        assert text in message
    assert "more" not in message.partition(":\n")[2]


def test_a_long_table_is_shortened():
    with pytest.raises(InputError) as caught:
        leave_out_unusable(make_images(1500), NONE, make_measured(1500, range(1243)))
    message = str(caught.value)
    assert message.endswith("… and 1,238 more")
    assert "ISIC_004" in message
    assert "ISIC_005" not in message


def test_an_image_counts_once_however_much_is_wrong_with_it():
    problems = make_problems(["a"] * 10)
    assert len(leave_out_unusable(make_images(19), problems)[0]) == 19  # 1 of 20


def test_only_what_is_left_out_counts():
    problems = make_problems([f"x{number}" for number in range(50)], action="first line used")
    problems.loc[50] = ["table.csv", "has no column age", "taken as unknown", None]
    kept, after = leave_out_unusable(make_images(10), problems)
    assert len(kept) == 10
    pd.testing.assert_frame_equal(after, problems)


def test_a_row_left_out_of_an_image_that_is_used_does_not_count():
    problems = make_problems([f"ISIC_{number:03d}" for number in range(5)])
    assert len(leave_out_unusable(make_images(10), problems)[0]) == 10


def test_all_images_damaged():
    with pytest.raises(InputError, match=r"^100\.0% of the images"):
        leave_out_unusable(make_images(3), NONE, make_measured(3, range(3)))


def test_images_of_16_bits_are_noted_and_kept():
    measured = make_measured(100, [50])
    measured.loc[[3, 70], "note"] = "has 16 bits: scaled to 8 bits"
    images, found = make_images(100), make_problems(["a"])
    kept, problems = leave_out_unusable(images, found, measured)
    pd.testing.assert_frame_equal(kept, images.drop(index=50).reset_index(drop=True))
    assert problems.index.equals(pd.RangeIndex(4))
    assert problems.columns.tolist() == PROBLEM_COLUMNS
    deep = problems[problems["problem"] == "has 16 bits"]
    assert deep["file"].tolist() == ["part/ISIC_003.jpg", "part/ISIC_070.jpg"]
    assert deep["action"].tolist() == ["scaled to 8 bits"] * 2
    assert problems["file"].iloc[0] == "a.jpg"
    assert "part/ISIC_050.jpg" in problems["file"].tolist()


def test_each_part_of_a_note_is_a_row_and_stops_no_run():
    measured = make_measured(20, []).assign(note="has 5 frames: the first one taken; is transparent: laid on white")
    kept, problems = leave_out_unusable(make_images(20), NONE, measured)
    assert (len(kept), len(problems)) == (20, 40)
    assert problems.iloc[:2, :3].to_numpy().tolist() == [
        ["part/ISIC_000.jpg", "has 5 frames", "the first one taken"],
        ["part/ISIC_000.jpg", "is transparent", "laid on white"],
    ]


def test_names_of_any_bytes_are_shown():
    images, measured = make_images(100), make_measured(100, [0])
    images.loc[:1, "path"] = ["caf\udce9.png", "two\nlines.png"]
    measured.loc[1, "note"] = "is transparent: laid on white"
    assert leave_out_unusable(images, NONE, measured)[1]["file"].tolist() == ["two\\nlines.png", "caf\\xe9.png"]


def test_contradictions_are_left_out_after_the_damaged_images():
    images = make_images(100)
    images.loc[[10, 11, 12], "group"] = "same"
    images.loc[[20, 21], "group"] = "one of them damaged"
    images.loc[[12, 20], "label"] = "mel"
    kept, problems = leave_out_unusable(images, make_problems(["a"]), make_measured(100, [20]))
    pd.testing.assert_frame_equal(kept, images.drop(index=[10, 11, 12, 20]).reset_index(drop=True))
    assert problems["image_id"].tolist() == ["a", "ISIC_020", "ISIC_010", "ISIC_011", "ISIC_012"]
    assert problems["problem"].tolist()[2:] == ["its group same is in mel and nv"] * 3


def test_contradictions_count_as_images_that_cannot_be_used():
    images = make_images(100)
    images.loc[:5, "group"] = "same"
    images.loc[0, "label"] = "mel"
    with pytest.raises(InputError, match=r"^6\.0% of the images cannot be used"):
        leave_out_unusable(images, NONE)
