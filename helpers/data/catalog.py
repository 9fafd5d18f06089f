"""The data sets: one record each, and the only place that names them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from helpers.errors import InputError


@dataclass(frozen=True)
class DataSet:
    """What is known of a data set before it is opened.

    Attributes
    ----------
    name : str
        Its folder below ``DATA_DIR``.
    title, task, citation, licence : str
    class_names : tuple of str
        The labels as the files have them, in the order of the model's outputs.
    class_labels : mapping of str to str
        Readable names of the classes.
    layout : str
        How its files are organized; selects the index function, see `helpers.data.index`.
    key_file : str
        A file or folder below its folder without which it is not there.
    files : str
        What its folder holds, in words; error messages quote it.
    handle : str
        Where it is downloaded from, with the version: ``keras:...`` or ``kaggle:owner/name/versions/n``.
    expected_counts : mapping of str to int
        Images of the original in each folder or part that it ships.
    group_rule : str
        What must not be on two sides of a split.
    image_shape : tuple of 3 ints
        Height, width and channels that the notebook works with.
    allowed_augmentation : str
        Which changes leave the label true.
    pixel_table_codes : tuple of str
        Where it ships tables of pixels, the classes in the order of the label codes there.
    optional_parts : tuple of str
        Parts without which it can be used.
    name_patterns : mapping of str to tuple of str
        Where file names tell the group: for each class the regular expressions of its names, from their beginning, with
        the named groups ``group`` and, as far as the names have them, ``series`` and ``number``.
    numbered_anew : tuple of str
        Parts in which the numbers of the groups start again: equal ones elsewhere are other groups.
    """

    name: str
    title: str
    task: str
    class_names: tuple[str, ...]
    class_labels: Mapping[str, str]
    layout: str
    key_file: str
    files: str
    handle: str
    expected_counts: Mapping[str, int]
    group_rule: str
    image_shape: tuple[int, int, int]
    allowed_augmentation: str
    citation: str
    licence: str
    pixel_table_codes: tuple[str, ...] = ()
    optional_parts: tuple[str, ...] = ()
    name_patterns: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    numbered_anew: tuple[str, ...] = ()


_DIGITS = tuple("0123456789")
_LESIONS = {
    "akiec": "actinic keratosis, Bowen's disease",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis-like lesion",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "vasc": "vascular lesion",
}
# The names of the publication, before Kaggle's.
_OTHER_EDITION = r"(?P<group>(?P<series>{})-(?P<number>\d{{1,9}}))(?!\d)"

_CATALOG = {
    record.name: record
    for record in [
        DataSet(
            name="mnist",
            title="MNIST handwritten digits",
            task="Which digit is it?",
            class_names=_DIGITS,
            class_labels=MappingProxyType({digit: digit for digit in _DIGITS}),
            layout="mnist_archive",
            key_file="mnist.npz",
            files="mnist.npz with the arrays x_train, y_train, x_test and y_test",
            handle="keras:mnist",
            expected_counts=MappingProxyType({"train": 60_000, "test": 10_000}),
            group_rule="identical images (mnist.npz does not name the writers)",
            image_shape=(28, 28, 1),
            allowed_augmentation="small rotations, shifts and zooms; no flips: a mirrored digit is no digit",
            citation="LeCun et al. (1998), Gradient-based learning applied to document recognition, Proc. IEEE 86(11)",
            licence="CC BY-SA 3.0",
        ),
        DataSet(
            name="ham10000",
            title="HAM10000 skin lesions",
            task="Which of seven kinds of skin lesion does the dermatoscopic image show?",
            class_names=tuple(_LESIONS),
            class_labels=MappingProxyType(_LESIONS),
            layout="ham10000",
            key_file="HAM10000_metadata.csv",
            files="HAM10000_metadata.csv, and the images ISIC_*.jpg in HAM10000_images_part_1/ and _part_2/",
            handle="kaggle:kmader/skin-cancer-mnist-ham10000/versions/2",
            expected_counts=MappingProxyType({"HAM10000_images_part_1": 5_000, "HAM10000_images_part_2": 5_015}),
            group_rule="images of the same lesion (lesion_id)",
            image_shape=(120, 160, 3),
            allowed_augmentation="any rotation, flips, small shifts and zooms, brightness; a lesion has no up or down",
            citation="Tschandl et al. (2018), The HAM10000 dataset, Scientific Data 5:180161",
            licence="CC BY-NC 4.0",
            pixel_table_codes=("akiec", "bcc", "bkl", "df", "nv", "vasc", "mel"),
        ),
        DataSet(
            name="chest-xray",
            title="Chest X-ray images of children (pneumonia)",
            task="Does the chest X-ray of a child of one to five years show pneumonia?",
            class_names=("NORMAL", "PNEUMONIA"),
            class_labels=MappingProxyType({"NORMAL": "normal", "PNEUMONIA": "pneumonia"}),
            layout="class_folders",
            key_file="chest_xray",
            files="images in chest_xray/{train,test}/{NORMAL,PNEUMONIA}/; val/ may be missing",
            handle="kaggle:paultimothymooney/chest-xray-pneumonia/versions/2",
            expected_counts=MappingProxyType({"train": 5_216, "val": 16, "test": 624}),
            group_rule="images of the same patient, and identical files",
            image_shape=(160, 160, 1),
            allowed_augmentation="small rotations, shifts and zooms, intensity; no flips: the heart is on one side",
            citation="Kermany et al. (2018), Identifying medical diagnoses and treatable diseases by image-based deep "
            "learning, Cell 172(5)",
            licence="CC BY 4.0",
            optional_parts=("val",),
            name_patterns=MappingProxyType(
                {
                    "NORMAL": (
                        r"(?P<group>(?P<series>(?:NORMAL\d*-)?IM)-(?P<number>\d{1,9}))(?!\d)",
                        _OTHER_EDITION.format("NORMAL"),
                    ),
                    "PNEUMONIA": (
                        r"(?P<group>person(?P<number>\d{1,9}))_(?P<series>bacteria|virus)_\d+",
                        _OTHER_EDITION.format("BACTERIA|VIRUS"),
                    ),
                }
            ),
            numbered_anew=("test",),
        ),
    ]
}


def get_data_set(name: str) -> DataSet:
    """Look up a data set by its name.

    Raises
    ------
    InputError
        There is no such record; the message lists those there are.
    """
    try:
        return _CATALOG[name]
    except KeyError:
        raise InputError(f"No data set is called {name!r}. Known: {', '.join(_CATALOG)}.") from None
