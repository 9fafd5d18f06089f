"""The records of the data sets: complete, consistent with one another, and with names that people can read."""

import re

import pytest

from helpers.data.catalog import get_data_set
from helpers.files import InputError

NAMES = ["mnist", "ham10000", "chest-xray", "melanoma", "melanoma-isic", "plants", "leukemia"]
CROPS = {
    *("apple", "bell pepper", "blueberry", "cherry", "corn", "grape", "orange", "peach", "potato", "raspberry"),
    *("soybean", "squash", "strawberry", "tomato"),
}


@pytest.fixture
def plants():
    return get_data_set("plants")


def read_group(record, label, stem):
    """Read the group from a file name as the index does, by the first pattern that fits."""
    matches = (re.match(pattern, stem) for pattern in record.name_patterns[label])
    return next(filter(None, matches))["group"]


def test_these_are_the_data_sets():
    with pytest.raises(InputError, match=f"Known: {', '.join(NAMES)}\\.$"):
        get_data_set("")


@pytest.mark.parametrize("name", NAMES)
def test_a_record_agrees_with_itself(name):
    record = get_data_set(name)
    assert record.name == name
    classes, parts = record.class_names, list(record.expected_counts)
    assert len(classes) == len(set(classes)) >= 2
    assert list(record.class_labels) == list(classes)
    assert set(record.name_patterns) in (set(), set(classes))
    assert set(record.optional_parts) <= set(parts)
    assert set(record.numbered_anew) <= set(parts)
    assert set(record.flat_parts) <= set(parts)
    for classes_by_name in record.flat_parts.values():
        assert set(classes_by_name.values()) <= set(classes)
    assert set(record.pixel_table_codes) in (set(), set(classes))
    assert all(count > 0 for count in record.expected_counts.values())
    assert len(record.image_shape) == 3
    assert record.image_shape[2] in (1, 3)
    assert record.handle.split(":")[0] in ("keras", "kaggle")
    words = (
        "title",
        "task",
        "layout",
        "key_file",
        "files",
        "group_rule",
        "allowed_augmentation",
        "citation",
        "licence",
    )
    assert all(getattr(record, word).strip() for word in words)


@pytest.mark.parametrize("name", NAMES)
def test_labels_can_be_read_and_told_apart(name):
    labels = list(get_data_set(name).class_labels.values())
    assert len({label.lower() for label in labels}) == len(labels)
    for label in labels:
        assert not re.search(r"[_()]|\s\s", label)
        assert label == label.strip() != ""


@pytest.mark.parametrize("name", NAMES)
def test_classes_can_be_told_apart_in_any_case(name):
    """The index takes folders in upper and in lower case."""
    record = get_data_set(name)
    for names in (record.class_names, record.expected_counts):
        assert len({name.lower() for name in names}) == len(names)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mnist"])
def test_downloads_are_pinned_to_a_version(name):
    assert re.fullmatch(r"kaggle:[\w-]+/[\w-]+/versions/\d+", get_data_set(name).handle)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("melanoma", {"train": 9_605, "test": 1_000}),
        ("melanoma-isic", {"train": 11_879, "test": 2_000}),
        ("plants", {"train": 70_295, "valid": 17_572, "test": 33}),
        ("leukemia", {"training_data": 10_661, "validation_data": 1_867, "testing_data": 2_586}),
    ],
)
def test_images_of_the_originals(name, counts):
    assert dict(get_data_set(name).expected_counts) == counts


def test_the_order_of_the_leukemia_classes_is_that_of_its_label_codes():
    """The layout reads the codes 0 and 1 by it."""
    record = get_data_set("leukemia")
    assert record.class_names == ("hem", "all")
    assert dict(record.class_labels) == {"hem": "healthy", "all": "leukemic"}
    assert record.optional_parts == ("testing_data",)


def test_the_two_melanoma_data_sets_ask_the_same_question():
    first, second = get_data_set("melanoma"), get_data_set("melanoma-isic")
    assert list(first.class_labels.values()) == list(second.class_labels.values()) == ["benign", "malignant"]
    assert first.image_shape == second.image_shape
    assert first.task == second.task
    assert first.handle != second.handle


@pytest.mark.parametrize("name", ["melanoma", "melanoma-isic"])
def test_names_of_lesions_tell_no_groups(name):
    """There are no patient numbers: near-duplicates are looked for instead."""
    record = get_data_set(name)
    assert not record.name_patterns
    assert not record.may_lack_classes


@pytest.mark.parametrize("name", NAMES)
def test_records_cannot_be_changed(name):
    record = get_data_set(name)
    for mapping in (record.class_labels, record.name_patterns, record.flat_parts, *record.flat_parts.values()):
        with pytest.raises(TypeError):
            mapping["other"] = "x"


# Plants


def test_there_are_38_classes_of_14_crops(plants):
    assert len(plants.class_names) == 38
    crops = {label.split(": ")[0] for label in plants.class_labels.values()}
    assert crops == CROPS
    assert sum(name.endswith("___healthy") for name in plants.class_names) == 12


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Apple___Apple_scab", "apple: scab"),
        ("Apple___Cedar_apple_rust", "apple: cedar apple rust"),
        ("Apple___healthy", "apple: healthy"),
        ("Cherry_(including_sour)___Powdery_mildew", "cherry: powdery mildew"),
        ("Corn_(maize)___Cercospora_leaf_spot Gray_leaf_spot", "corn: gray leaf spot"),
        ("Corn_(maize)___Common_rust_", "corn: common rust"),
        ("Grape___Esca_(Black_Measles)", "grape: esca"),
        ("Grape___Leaf_blight_(Isariopsis_Leaf_Spot)", "grape: leaf blight"),
        ("Orange___Haunglongbing_(Citrus_greening)", "orange: huanglongbing"),
        ("Pepper,_bell___healthy", "bell pepper: healthy"),
        ("Tomato___Spider_mites Two-spotted_spider_mite", "tomato: spider mites"),
        ("Tomato___Tomato_Yellow_Leaf_Curl_Virus", "tomato: yellow leaf curl virus"),
        ("Tomato___Tomato_mosaic_virus", "tomato: mosaic virus"),
    ],
)
def test_labels_of_plants(plants, name, label):
    assert plants.class_labels[name] == label


def test_labels_of_plants_are_short_enough_for_a_matrix(plants):
    assert all(re.fullmatch(r"[a-z ]+: [a-z ]+", label) for label in plants.class_labels.values())
    assert max(map(len, plants.class_labels.values())) <= 30


def test_name_patterns_compile_and_give_a_group():
    for name in NAMES:
        for patterns in get_data_set(name).name_patterns.values():
            assert patterns
            for pattern in patterns:
                assert "group" in re.compile(pattern).groupindex


UUID = "0a5e9323-dbad-432d-ac58-d291718345d9"


@pytest.mark.parametrize(
    ("stem", "group"),
    [
        (f"{UUID}___FREC_Scab 3417", f"{UUID}___FREC_Scab 3417"),
        (f"{UUID}___FREC_Scab 3417_90deg", f"{UUID}___FREC_Scab 3417"),
        (f"{UUID}___FREC_Scab 3417_270deg", f"{UUID}___FREC_Scab 3417"),
        (f"{UUID}___FREC_Scab 3417_new30degFlipLR", f"{UUID}___FREC_Scab 3417"),
        (f"{UUID}___RS_HL 1_flipLR", f"{UUID}___RS_HL 1"),
        (f"{UUID}___RS_HL 1_flipTB", f"{UUID}___RS_HL 1"),
        (f"{UUID}___RS_HL 1_flipTB copy", f"{UUID}___RS_HL 1"),
        (f"{UUID}___RS_HL 1 copy 2", f"{UUID}___RS_HL 1"),
        (f"{UUID}___RS_HL 1_180deg_flipLR", f"{UUID}___RS_HL 1"),
        (f"{UUID}___RS_HL 12", f"{UUID}___RS_HL 12"),
        (f"{UUID}___UF.Citrus_HLB_Lab 0021 copy", f"{UUID}___UF.Citrus_HLB_Lab 0021"),
    ],
)
def test_all_copies_of_a_photograph_are_one_group(plants, stem, group):
    for label in plants.class_names:
        assert read_group(plants, label, stem) == group


@pytest.mark.parametrize(
    ("stem", "group"),
    [
        (f"{UUID}___GH_HL Leaf 308", "GH_HL Leaf 308"),
        (f"{UUID}___GH_HL Leaf 308 copy", "GH_HL Leaf 308"),
        (f"{UUID}___GH_HL Leaf 308.1_180deg", "GH_HL Leaf 308"),
        ("another___GHLB Leaf 2.1 Day 5", "GHLB Leaf 2"),
        (f"{UUID}___GHLB Leaf 21 Day 12_flipTB", "GHLB Leaf 21"),
        (f"{UUID}___NoLeaf 12", f"{UUID}___NoLeaf 12"),
    ],
)
def test_photographs_of_a_numbered_leaf_are_one_group_whatever_stands_before_it(plants, stem, group):
    assert read_group(plants, "Tomato___healthy", stem) == group


def test_the_test_files_of_plants_tell_their_class(plants):
    assert list(plants.flat_parts) == ["test"]
    for start, label in plants.flat_parts["test"].items():
        crop, disease = label.split("___")
        assert start.startswith(crop.split("_")[0])
        known = re.findall("[A-Z][a-z]+", start.removeprefix(crop.split("_")[0]))
        assert all(word.lower() in disease.lower() for word in known)
