"""The data sets: one record each, and the only place that names them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from helpers.files import InputError


@dataclass(frozen=True)
class DataSet:
    """What is known of a data set before it is opened; its mappings are read-only."""

    name: str  # its folder below DATA_DIR
    title: str
    task: str
    class_names: tuple[str, ...]  # the labels as the files have them, in the order of the model's outputs
    class_labels: Mapping[str, str]  # a readable name of each class, under which the notebooks know it
    layout: str  # how its files are organized: selects the index function of helpers.data.opening
    key_file: str  # a file or folder in its folder without which the data set is not there
    files: str  # what its folder holds, in words, for error messages
    handle: str  # where it is downloaded from, with the version
    expected_counts: Mapping[str, int]  # images of the original in each part that it ships
    group_rule: str  # what must not be on two sides of a split
    image_shape: tuple[int, int, int]  # height, width and channels that the notebook works with
    allowed_augmentation: str  # which changes leave the label true
    citation: str
    licence: str
    pixel_table_codes: tuple[str, ...] = ()  # the classes in the order of the codes in the original's tables of pixels
    other_names: tuple[str, ...] = ()  # in the name of a folder: it holds another data set of the same layout
    optional_parts: tuple[str, ...] = ()  # may be missing
    # For each class the regular expressions of its file names, with the named groups "group" and, where the names have
    # them, "series" and "number". Without patterns each image is its own group.
    name_patterns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    numbered_anew: tuple[str, ...] = ()  # parts in which the numbers start again: equal ones elsewhere are other groups
    # Parts without class folders: how their file names begin, and the class that this stands for.
    flat_parts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    may_lack_classes: bool = False  # whether a copy with fewer classes than the original can be used
    # Images that are put into one group: "identical" files; those that look "alike", mirrored or turned; and "cropped"
    # or tilted ones, of which one was made from the other.
    joined: tuple[str, ...] = ()
    kept_part: str = ""  # images of other parts whose group is also in this one are left out
    background: int = 255  # what transparent pixels are laid on: white, or 0, black
    medical: bool = False  # no model of it is for clinical use
    may_be_inverted: bool = False  # whether an image with light and dark exchanged shows the same
    sample: str = "drawn sample"  # what figures and tables of the built-in sample are marked with
    edition: str = ""  # added to the name of a notebook's results where the notebook can use several data sets

    def __post_init__(self):
        for name, value in vars(self).copy().items():
            object.__setattr__(self, name, _freeze(value))


def _freeze(value):
    """Make mappings read-only, those inside mappings too."""
    if isinstance(value, Mapping):
        value = MappingProxyType({name: _freeze(inner) for name, inner in value.items()})
    return value


_DIGITS = tuple("0123456789")
_LESIONS = {
    "akiec": "actinic keratosis",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "nevus",
    "vasc": "vascular lesion",
}
_MELANOMA = {
    "task": "Is the skin lesion benign or malignant?",
    "layout": "class_folders",
    "group_rule": "images that look alike, also turned, mirrored or cropped (there are no patient numbers)",
    "image_shape": (160, 160, 3),
    "allowed_augmentation": "any rotation, flips, small shifts and zooms, brightness; a lesion has no up or down",
    "joined": ("identical", "alike", "cropped"),
    "medical": True,
}
_CROPS = {"Cherry_(including_sour)": "cherry", "Corn_(maize)": "corn", "Pepper,_bell": "bell pepper"}
_DISEASES = {
    "Cercospora_leaf_spot Gray_leaf_spot": "gray leaf spot",
    "Haunglongbing_(Citrus_greening)": "huanglongbing",
    "Spider_mites Two-spotted_spider_mite": "spider mites",
}
_PLANTS = tuple(
    f"{crop}___{disease}"
    for crop, diseases in {
        "Apple": "Apple_scab, Black_rot, Cedar_apple_rust, healthy",
        "Blueberry": "healthy",
        "Cherry_(including_sour)": "Powdery_mildew, healthy",
        "Corn_(maize)": "Cercospora_leaf_spot Gray_leaf_spot, Common_rust_, Northern_Leaf_Blight, healthy",
        "Grape": "Black_rot, Esca_(Black_Measles), Leaf_blight_(Isariopsis_Leaf_Spot), healthy",
        "Orange": "Haunglongbing_(Citrus_greening)",
        "Peach": "Bacterial_spot, healthy",
        "Pepper,_bell": "Bacterial_spot, healthy",
        "Potato": "Early_blight, Late_blight, healthy",
        "Raspberry": "healthy",
        "Soybean": "healthy",
        "Squash": "Powdery_mildew",
        "Strawberry": "Leaf_scorch, healthy",
        "Tomato": "Bacterial_spot, Early_blight, Late_blight, Leaf_Mold, Septoria_leaf_spot, "
        "Spider_mites Two-spotted_spider_mite, Target_Spot, Tomato_Yellow_Leaf_Curl_Virus, "
        "Tomato_mosaic_virus, healthy",
    }.items()
    for disease in diseases.split(", ")
)
# A leaf that was photographed several times has its number in the name; otherwise each photograph counts as a leaf of
# its own. Behind it stand the marks of copies that were derived from the photograph.
_LEAF_NAMES = (
    r".*___(?P<group>.*\bLeaf \d+)(?!\d)",
    r"(?P<group>.+?)\s*(?:_(?:\d+deg|flip(?:LR|TB)|new[A-Za-z0-9]+)| copy(?: \d+)?)*$",
)
# The names of the publication, before Kaggle's.
_OTHER_EDITION = r"(?P<group>(?P<series>{})-(?P<number>\d{{1,9}}))(?!\d)"


def _read_plant(name):
    """Read crop and disease from the name of a class: ``Tomato___Tomato_mosaic_virus`` is "tomato: mosaic virus"."""
    crop, disease = name.split("___")
    disease = _DISEASES.get(disease, re.sub(rf"^{crop}_|\([^)]*\)|_", " ", disease))
    return f"{_CROPS.get(crop, crop.lower())}: {' '.join(disease.lower().split())}"


_CATALOG = {
    record.name: record
    for record in [
        DataSet(
            name="mnist",
            title="MNIST handwritten digits",
            task="Which digit is it?",
            class_names=_DIGITS,
            class_labels=dict(zip(_DIGITS, _DIGITS, strict=True)),
            layout="mnist_archive",
            key_file="mnist.npz",
            files="mnist.npz with the arrays x_train, y_train, x_test and y_test, or the four files of the publisher, "
            "such as train-images-idx3-ubyte.gz; tables of pixels (.csv) are not read",
            handle="keras:mnist",
            expected_counts={"train": 60_000, "test": 10_000},
            group_rule="identical images (mnist.npz does not name the writers)",
            image_shape=(28, 28, 1),
            allowed_augmentation="small rotations, shifts and zooms; no flips: a mirrored digit is no digit",
            other_names=("fashion", "kmnist", "emnist"),
            may_be_inverted=True,
            sample="sample of 8 × 8 digits",
            citation="LeCun et al. (1998), Gradient-based learning applied to document recognition, Proc. IEEE 86(11)",
            licence="CC BY-SA 3.0",
        ),
        DataSet(
            name="ham10000",
            title="HAM10000 skin lesions",
            task="Which of seven kinds of skin lesion does the dermatoscopic image show?",
            class_names=tuple(_LESIONS),
            class_labels=_LESIONS,
            layout="ham10000",
            key_file="HAM10000_metadata.csv",
            files="HAM10000_metadata.csv, and the images ISIC_*.jpg in HAM10000_images_part_1/ and _part_2/",
            handle="kaggle:kmader/skin-cancer-mnist-ham10000/versions/2",
            expected_counts={"HAM10000_images_part_1": 5_000, "HAM10000_images_part_2": 5_015},
            group_rule="images of the same lesion (lesion_id)",
            image_shape=(120, 160, 3),
            allowed_augmentation="any rotation, flips, small shifts and zooms, brightness; a lesion has no up or down",
            citation="Tschandl et al. (2018), The HAM10000 dataset, Scientific Data 5:180161",
            licence="CC BY-NC 4.0",
            pixel_table_codes=("akiec", "bcc", "bkl", "df", "nv", "vasc", "mel"),
            medical=True,
            may_lack_classes=True,
        ),
        DataSet(
            name="chest-xray",
            title="Chest X-ray images of children (pneumonia)",
            task="Does the chest X-ray of a child of one to five years show pneumonia?",
            class_names=("NORMAL", "PNEUMONIA"),
            class_labels={"NORMAL": "normal", "PNEUMONIA": "pneumonia"},
            layout="class_folders",
            key_file="chest_xray",
            files="images in chest_xray/{train,test}/{NORMAL,PNEUMONIA}/; val/ may be missing",
            handle="kaggle:paultimothymooney/chest-xray-pneumonia/versions/2",
            expected_counts={"train": 5_216, "val": 16, "test": 624},
            group_rule="images of the same patient, and identical files",
            image_shape=(160, 160, 1),
            allowed_augmentation="small rotations, shifts and zooms, intensity; no flips: the heart is on one side",
            citation="Kermany et al. (2018), Identifying medical diagnoses and treatable diseases by image-based deep "
            "learning, Cell 172(5)",
            licence="CC BY 4.0",
            optional_parts=("val",),
            name_patterns={
                "NORMAL": (
                    r"(?P<group>(?P<series>(?:NORMAL\d*-)?IM)-(?P<number>\d{1,9}))(?!\d)",
                    _OTHER_EDITION.format("NORMAL"),
                ),
                "PNEUMONIA": (
                    r"(?P<group>person(?P<number>\d{1,9}))_(?P<series>bacteria|virus)_\d+",
                    _OTHER_EDITION.format("BACTERIA|VIRUS"),
                ),
            },
            numbered_anew=("test",),
            joined=("identical",),
            kept_part="test",
            medical=True,
        ),
        DataSet(
            name="melanoma",
            title="Melanoma skin cancer, 10,000 images",
            class_names=("benign", "malignant"),
            class_labels={"benign": "benign", "malignant": "malignant"},
            key_file="melanoma_cancer_dataset",
            files="images in melanoma_cancer_dataset/{train,test}/{benign,malignant}/",
            handle="kaggle:hasnainjaved/melanoma-skin-cancer-dataset-of-10000-images/versions/1",
            expected_counts={"train": 9_605, "test": 1_000},
            citation="Kaggle, hasnainjaved, Melanoma skin cancer dataset of 10000 images; from the ISIC archive",
            licence="CC0 as published on Kaggle; the ISIC archive has CC0 and CC BY-NC images",
            edition="10000",
            **_MELANOMA,
        ),
        DataSet(
            name="melanoma-isic",
            title="Melanoma cancer image dataset",
            class_names=("Benign", "Malignant"),
            class_labels={"Benign": "benign", "Malignant": "malignant"},
            key_file="train",
            files="images in {train,test}/{Benign,Malignant}/",
            handle="kaggle:bhaveshmittal/melanoma-cancer-dataset/versions/1",
            expected_counts={"train": 11_879, "test": 2_000},
            citation="Kaggle, bhaveshmittal, Melanoma cancer image dataset; from the ISIC archive",
            licence="ISIC archive: CC0 and CC BY-NC, by image",
            **_MELANOMA,
        ),
        DataSet(
            name="plants",
            title="New Plant Diseases (PlantVillage, augmented)",
            task="Which crop is the leaf from, and which of its diseases does it have, if any?",
            class_names=_PLANTS,
            class_labels={name: _read_plant(name) for name in _PLANTS},
            layout="class_folders",
            key_file="New Plant Diseases Dataset(Augmented)",
            files="images in New Plant Diseases Dataset(Augmented)/New Plant Diseases Dataset(Augmented)/{train,valid}/"
            "<crop>___<disease>/, and a few in test/test/; test/ may be missing, and classes too",
            handle="kaggle:vipoooool/new-plant-diseases-dataset/versions/2",
            expected_counts={"train": 70_295, "valid": 17_572, "test": 33},
            group_rule="photographs of the same leaf and all copies derived from them",
            image_shape=(128, 128, 3),
            allowed_augmentation="any rotation, flips, small shifts and zooms, brightness; not hue: colour is a sign",
            citation="Hughes and Salathé (2015), An open access repository of images on plant health, "
            "arXiv:1511.08060; augmented and split by Kaggle, vipoooool",
            licence="CC0 (PlantVillage)",
            optional_parts=("test",),
            name_patterns=dict.fromkeys(_PLANTS, _LEAF_NAMES),
            flat_parts={
                "test": {
                    "AppleCedarRust": "Apple___Cedar_apple_rust",
                    "AppleScab": "Apple___Apple_scab",
                    "CornCommonRust": "Corn_(maize)___Common_rust_",
                    "PotatoEarlyBlight": "Potato___Early_blight",
                    "PotatoHealthy": "Potato___healthy",
                    "TomatoEarlyBlight": "Tomato___Early_blight",
                    "TomatoHealthy": "Tomato___healthy",
                    "TomatoYellowCurlVirus": "Tomato___Tomato_Yellow_Leaf_Curl_Virus",
                }
            },
            may_lack_classes=True,
            joined=("alike",),
        ),
        DataSet(
            name="leukemia",
            title="C-NMC leukemia: white blood cells",
            task="Is the white blood cell a leukemic one (acute lymphoblastic leukemia) or a healthy one?",
            class_names=("hem", "all"),
            class_labels={"hem": "healthy", "all": "leukemic"},
            layout="cnmc",
            key_file="C-NMC_Leukemia",
            files="images in C-NMC_Leukemia/training_data/fold_{0,1,2}/{all,hem}/, at least two of these folds; "
            "validation_data/C-NMC_test_prelim_phase_data/ and its labels in "
            "validation_data/C-NMC_test_prelim_phase_data_labels.csv; "
            "testing_data/C-NMC_test_final_phase_data/, without labels, may be missing",
            handle="kaggle:andrewmvd/leukemia-classification/versions/2",
            expected_counts={"training_data": 10_661, "validation_data": 1_867, "testing_data": 2_586},
            group_rule="cells of the same subject",
            image_shape=(112, 112, 3),
            allowed_augmentation="any rotation, flips, small shifts, stain and brightness; hardly any zoom: the size "
            "of a cell is a sign",
            background=0,
            medical=True,
            citation="Gupta and Gupta (2019), ALL challenge dataset of ISBI 2019 (C-NMC 2019), The Cancer Imaging "
            "Archive, doi:10.7937/tcia.2019.dc64i46r",
            licence="CC BY 3.0",
            optional_parts=("testing_data",),
        ),
    ]
}


def get_data_set(name: str) -> DataSet:
    """Look up a data set by its name; raise InputError, which lists those that there are, if it is unknown."""
    if name not in _CATALOG:
        raise InputError(f"No data set is called {name!r}. Known: {', '.join(_CATALOG)}.")
    return _CATALOG[name]


def list_data_sets():
    """List the records of all data sets."""
    return tuple(_CATALOG.values())
