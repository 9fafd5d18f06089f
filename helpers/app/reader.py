"""What a saved model says of a picture: its class, how sure that is, where it looks, and what may be wrong."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import ExifTags, Image

from helpers.archives import open_archive, read_member
from helpers.data import opening
from helpers.data.catalog import get_data_set
from helpers.data.listing import IMAGE_FORMATS
from helpers.data.pixels import decode_image, load_pixels, measure_images, read_image, refuse_bombs
from helpers.files import InputError
from helpers.predict.classifier import Classifier, Decoded
from helpers.settings import PROJECT_FOLDER, read_settings

MODELS_FOLDER = PROJECT_FOLDER / "models"
MOST_BYTES = 20 * 10**6  # of a picture
SIMILAR = 4  # training images are shown
_SIDE = 320  # pixels of the longer side of what is shown of the picture itself
_GREY = 12  # levels between the channels of a pixel: less is the noise of JPEG
_ONE_COLOUR = 2  # levels, the spread of a picture that shows nothing
_SQUEEZED = 1.5  # so many times wider, or higher, than what the model takes


class Answer(NamedTuple):
    """What a model says of a picture; None is what it cannot tell."""

    name: str  # of the picture, as it was given: not to be trusted
    size: tuple  # width and height in pixels, upright
    picture: np.ndarray  # uint8 (height, width, 3), the picture, made smaller
    pixels: np.ndarray  # uint8 (height, width, channels), what the model gets
    heatmap: np.ndarray | None  # (height, width) from 0 to 1, where the evidence for the first class lies
    classes: pd.DataFrame  # class, probability and in_set, the most probable class first
    always: list | None  # of str, the classes that are in every set; None where the model has no sets
    distance: float | None  # to the training images; above 1 the picture is foreign
    similar: list  # of pairs, what a similar training image is called, and its pixels or None
    notes: list  # of str, what was changed in the picture
    doubts: list  # of str, what may be wrong with it


def list_models(folder=MODELS_FOLDER):
    """List the models that the notebooks have saved.

    Return a dict of str to Path: what a model is called, and its file. Files of other programs are left out.
    """
    models = {}
    for path in sorted(folder.glob("**/[!.]*.keras"), key=lambda path: (path.parent.name, path)):
        try:
            with open(path, "rb") as file, open_archive(file) as archive:
                about = json.loads(read_member(archive, "about.json"))  # `read_about` would start TensorFlow: seconds
            record = _find_record(about.get("data_set", ""))
        except Exception:  # a damaged or hostile archive fails in many ways inside zipfile, zlib and json
            continue
        kind, *_ = path.relative_to(folder).parts
        made_from = {"sample": record.sample if record else "drawn sample", "quick": "real images, quick run"}
        title = record.title if record else path.parent.name
        origin = made_from.get(kind, "real images")  # first, because a small screen cuts the end off
        name = f"{origin[0].upper()}{origin[1:]} · {title}: {path.stem.replace('_', ' ')}"
        models[f"{name}, {path.parent.name}" if name in models else name] = path  # as of a copy of a notebook
    return models


def _find_record(name):
    try:
        return get_data_set(name)
    except InputError:
        return None


class Reader:
    """A saved model that reads pictures; a file that is no such model is an InputError.

    Attributes
    ----------
    task : str, the question that the model answers, or "" where it is not known
    sample : Sample, what the model was trained on, or None where it was trained on something else
    """

    def __init__(self, path, folder=MODELS_FOLDER):
        self._classifier = Classifier(path)
        record = _find_record(self._classifier.data_set)
        self.task = record.task if record else ""
        is_sample = record and Path(path).is_relative_to(folder / "sample")
        self.sample = Sample(record, self._classifier) if is_sample else None
        shape = self._classifier.shape
        self._answer(
            "", shape[:2], np.zeros((1, 1, 3), "uint8"), Decoded(np.zeros(shape, "uint8"), "", "")
        )  # traces it

    def read(self, name, content):
        """Read a picture, given by its name and the bytes of its file: an `Answer`.

        Raise InputError, which tells what is wrong and what to do, if it cannot be read.
        """
        if not content:
            raise InputError("The file is empty. Choose another picture.")
        if len(content) > MOST_BYTES:
            raise InputError(
                f"The file has {len(content) / 1e6:,.0f} MB; at most {MOST_BYTES / 1e6:.0f} MB are read. "
                "Save the picture smaller, best as JPEG."
            )
        try:
            with refuse_bombs():
                pixels, note = decode_image(content, self._classifier.shape, self._classifier.background)
                size = _read_size(content)
                scale = min(1, _SIDE / max(size))
                shape = (*(max(1, round(side * scale)) for side in size[::-1]), 3)
                picture, _ = decode_image(content, shape, self._classifier.background)
        except InputError as error:
            reason = str(error).removesuffix(" Fetch it again or remove it.").removesuffix(".")
            raise InputError(f"{reason}. Choose another picture, best a JPEG or PNG.") from error
        return self._answer(name, size, picture, Decoded(pixels, note, ""))

    def _answer(self, name, size, picture, decoded):
        classifier, found = self._classifier, self._classifier.judge([decoded])
        code = int(found.y_prob[0].argmax())
        in_set = np.zeros(len(found.y_prob[0]), bool)
        if found.sets is not None:
            in_set = found.sets[[f"in_{name}" for name in classifier.class_names]].to_numpy()[0]
        columns = {"class": classifier.class_names, "probability": found.y_prob[0], "in_set": in_set}
        similar = [(known, None) for known in classifier.find_similar(found.pixels[0], SIMILAR)]
        if self.sample:
            similar = [self.sample.show(known) for known, _ in similar]
        return Answer(
            name=name,
            size=size,
            picture=picture,
            pixels=found.pixels[0],
            heatmap=classifier.explain(found.pixels[0], code),
            classes=pd.DataFrame(columns).sort_values("probability", ascending=False, ignore_index=True),
            always=None
            if found.sets is None
            else [label for label, threshold in classifier.thresholds.items() if threshold == 0],
            distance=None if found.distances is None else float(found.distances[0]),
            similar=similar,
            notes=[note for note in found.notes[0].split("; ") if note],
            doubts=self._find_doubts(size, picture, decoded, found.distances),
        )

    def _find_doubts(self, size, picture, decoded, distances):
        """Find what may be wrong with a picture, in sentences."""
        height, width, channels = self._classifier.shape
        doubts = []
        if picture.std(axis=(0, 1)).max() < _ONE_COLOUR:
            doubts.append("The picture is nearly of one colour: it shows nothing.")
        if size[0] * size[1] < width * height / 2:
            doubts.append(
                f"The picture is small, {size[0]} × {size[1]} pixels. It was enlarged to {width} × {height}, "
                "which adds no detail."
            )
        shape = size[0] / size[1] / (width / height)
        if max(shape, 1 / shape) > _SQUEEZED:
            doubts.append(
                f"The picture is too {'wide' if shape > 1 else 'high'} for this model and was squeezed. Cut out the "
                "part that matters."
            )
        is_grey = np.quantile(np.ptp(picture.astype(int), axis=2), 0.99) < _GREY
        if channels == 3 and is_grey:
            doubts.append("The picture is grey, but the model was trained on colour pictures.")
        if channels == 1 and not is_grey:
            doubts.append(
                "The picture is in colour, but the model was trained on grey pictures. It gets the brightness."
            )
        if distances is not None and distances[0] > 1:
            inverse = self._classifier.judge([decoded._replace(pixels=255 - decoded.pixels)])
            if inverse.distances[0] < distances[0] / 2:
                doubts.append(
                    "With light and dark exchanged the picture would look more like the training images. It may be a "
                    "negative."
                )
        return doubts


def _read_size(content):
    """Read width and height of a picture as it is seen, upright."""
    with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
        if image.format == "TIFF":
            return image.size  # which Pillow has turned already
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return image.size[::-1] if turned else image.size


class Sample:
    """The built-in sample of a data set: the pictures that a model of it was trained on, and those that it was not.

    A model keeps at most `helpers.evaluation.foreign.PROTOTYPES` ids of its training images, which are those of
    any sample. A picture counts as new if its group has none of them.
    """

    def __init__(self, record, classifier):
        settings = replace(read_settings(), source="sample")
        self._record, self._shape = record, classifier.shape
        self._folder = opening.find_data(record, settings).folder
        images, _ = opening.index_images(record, self._folder, settings.cache_dir)
        about = self._folder, settings.cache_dir, record.background
        self._pixels = None
        if "array" in images:
            self._pixels = load_pixels(images, about[0], self._shape, *about[1:])
        else:
            images = images[measure_images(images, *about)["error"] == ""]
        seen = set(images["group"][images["image_id"].isin(classifier.training_ids)])
        self._images = images.set_index("image_id", drop=False)
        self._new = images[images["label"].notna() & ~images["group"].isin(seen)].sample(frac=1, random_state=0)

    def show(self, image_id):
        """Show an image: what it is called, and its pixels or None where there is no such image."""
        if image_id not in self._images.index:
            return image_id, None
        row = self._images.loc[image_id]
        return self._name(row), self._read(row)

    def get_new(self, number):
        """Get a picture of a group that the model was not trained on: a name and the bytes of an image file."""
        row = self._new.iloc[number % len(self._new)]
        name = f"{Path(row['image_id']).name} (in truth: {self._name(row)})"
        if self._pixels is None:
            return name, (self._folder / row["path"]).read_bytes()
        Image.fromarray(self._read(row).squeeze()).save(stream := io.BytesIO(), "PNG")
        return name, stream.getvalue()

    def _name(self, row):
        return self._record.class_labels.get(row["label"], "no label")

    def _read(self, row):
        if self._pixels is None:
            return read_image(self._folder / row["path"], self._shape, self._record.background)
        return self._pixels[self._images.index.get_loc(row["image_id"])]
