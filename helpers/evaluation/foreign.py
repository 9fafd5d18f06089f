"""Foreign images: how unlike its training images a picture is that a model is asked about.

A classifier gives a class to whatever it is shown, and is often sure of it. So an image is compared with training
images of the model in two ways, because each notices what the other overlooks. Simple statistics of the pixels tell
other kinds of pictures, such as an empty page or a photograph; features, which are what the model sees in an image,
also tell some kinds of things that it never saw, such as another crop. A foreign image is one whose distance is beyond
a limit, which validation images set. An image within the limit may be foreign still: that it looks familiar does not
make its class right. ``python -m benchmarks.foreign`` measures what is noticed.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import ThreadpoolController

PROTOTYPES = 2000  # training images that are kept to compare with, at most
REFUSED = 0.02  # share of the validation images that may be beyond the limit
_VERSION = 1  # of the statistics and distances: raise it whenever the same image would be at another distance
_SAMPLED = 24  # rows and columns of pixels that statistics look at, at most
_TILES = 4  # in each direction
_QUANTILES = np.array([0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
_COMPONENTS = 64
_ENCODING = "utf-8", "surrogateescape"  # a quarter of the size of NumPy's str; any file name comes back as it was
_PROJECTION = 2**19  # numbers in a projection: wide features get fewer components, so that model files stay small

# One thread, because on processors that others use threads wait for one another: forty times as long was measured. A
# controller that is kept is entered in microseconds, which threadpool_limits is not.
_run_in_one_thread = ThreadpoolController().wrap(limits=1)


def describe_pixels(pixels):
    """Describe images by simple statistics: float32 (n, 37) for grey images, (n, 61) for colour images.

    They are mean, spread and quantiles, middle against the whole, and differences between neighbours, of the brightness
    and, for colour images, of two differences, red against green and blue against both; besides the brightness of 4x4
    tiles and their spread, the shares of black and white, and how neighbouring pixels differ. Up to 24 rows and columns
    of pixels are looked at.

    Parameters
    ----------
    pixels : uint8 array (n, height, width, channels)
        1 or 3 channels, at least 5 pixels high and wide; anything else is a ValueError.
    """
    n, height, width, channels = pixels.shape
    if channels not in (1, 3) or min(height, width) <= _TILES:
        raise ValueError(f"Expected grey or colour images of at least 5x5 pixels, got shape {pixels.shape[1:]}.")
    down, across = -(-height // _SAMPLED), -(-width // _SAMPLED)
    lines = np.asarray(pixels).reshape(n, height, width * channels)

    def sample(channel, below=0, right=0):  # a channel at a time: NumPy copies three values at a time slowly
        start, stop = channel + right * channels, (width - 1 + right) * channels
        return lines[:, below : height - 1 + below : down, start : stop : across * channels].astype("float32")

    main = channels // 2  # where single pixels are compared green stands for the brightness
    level = sample(main)
    planes = [(level, 0.5)]  # and what is added to make whole numbers from 0 to 255 of it
    if channels == 3:
        red, blue = sample(0), sample(2)
        bright = (red + blue + 2 * level) / 4
        planes = [(bright, 0.5), ((red - level) / 2, 128), ((blue - bright) / 2, 128)]
    found = []
    for plane, shift in planes:
        values = plane.reshape(n, -1)
        ordered = np.sort((values + shift).astype("uint8"), axis=1, kind="stable")
        found += ordered[:, (_QUANTILES * (values.shape[1] - 1)).astype(int)].T.tolist()
        found += [values.mean(axis=1), values.std(axis=1), _crop(plane).mean(axis=(1, 2)) - values.mean(axis=1)]
        found += [np.log1p(np.abs(np.diff(plane, axis=axis)).mean(axis=(1, 2))) for axis in (1, 2)]
    bright = planes[0][0]
    rows = np.array_split(bright, _TILES, axis=1)
    tiles = [tile.mean(axis=(1, 2)) for row in rows for tile in np.array_split(row, _TILES, axis=2)]
    found += [*tiles, np.std(tiles, axis=0), (bright < 2.5).mean(axis=(1, 2)), (bright > 252.5).mean(axis=(1, 2))]
    for neighbour in (sample(main, below=1), sample(main, right=1)):
        step = np.abs(neighbour - level)
        found += [np.log1p(step.mean(axis=(1, 2))), np.log1p(step.std(axis=(1, 2))), (step < 0.75).mean(axis=(1, 2))]
    return np.stack(found, axis=1).astype("float32")


def _crop(images):
    """Cut a quarter off each side."""
    top, left = images.shape[1] // 4, images.shape[2] // 4
    return images[:, top : images.shape[1] - top, left : images.shape[2] - left]


@dataclass(eq=False)
class _Space:
    """Training images along principal components, and the distance to the nearest of them that is the limit."""

    mean: np.ndarray  # float32 (width,)
    scale: np.ndarray  # float32 (width,)
    components: np.ndarray  # float16 (k, width)
    spread: np.ndarray  # float32 (k,)
    prototypes: np.ndarray  # float16 (n, k)
    limit: np.ndarray  # float32 ()

    def __post_init__(self):
        self._projection = np.ascontiguousarray(self.components.astype("float32").T)
        self._projection /= self.scale[:, None] * self.spread
        self._origin = (self._projection * self.mean[:, None]).sum(axis=0)  # in the same order on any number of cores
        self._known = self.prototypes.astype("float32")
        self._squares = np.square(self._known).sum(axis=1)

    @classmethod
    def fit(cls, known, validation):
        """Fit to the values (n, width) of training images, and set the limit by those of validation images."""
        mean, scale = known.mean(axis=0), known.std(axis=0)
        scale = scale + 1e-3 * scale.max() + 1e-6  # what hardly varies says little
        count = min(_COMPONENTS, *known.shape, max(1, _PROJECTION // known.shape[1]))
        standardized = known - mean
        standardized /= scale
        _, singular, components = randomized_svd(standardized, count, random_state=0)
        del standardized  # as large as all features
        variance = np.square(singular) / len(known)
        spread = np.sqrt(variance + variance.mean() + 1e-6)  # small ones are noise in part: shrunk towards their mean
        values = {"mean": mean, "scale": scale, "spread": spread, "limit": 1}
        values = {name: np.asarray(value, "float32") for name, value in values.items()}
        values["components"] = components.astype("float16")
        space = cls(prototypes=np.zeros((1, count), "float16"), **values)
        space = cls(prototypes=space.project(known).astype("float16"), **values)
        space.limit = _find_limit(space.compare(validation)[0])
        return space

    def project(self, values):
        return values @ self._projection - self._origin

    def compare(self, values):
        """Find the nearest training image: distances (n,), as multiples of the limit, and positions (n,)."""
        values = self.project(values)
        squares = self._squares - 2 * values @ self._known.T  # less a number that is the same for all prototypes
        nearest = squares.argmin(axis=1)
        squares = squares[np.arange(len(values)), nearest] + np.square(values).sum(axis=1)
        return np.sqrt(np.maximum(squares, 0)) / self.limit, nearest

    def rank(self, values, count):
        """Find the nearest training images, the nearest first: positions (n, at most ``count``)."""
        squares = self._squares - 2 * self.project(values) @ self._known.T
        return squares.argsort(axis=1, kind="stable")[:, :count]


def _find_limit(distances):
    """Find the distance that the share `REFUSED` of further known images is expected to exceed.

    It is a rank of split conformal prediction (Vovk 2012). Fewer than 49 images do not have it: it is the largest
    distance then, which more images exceed.
    """
    rank = math.ceil((len(distances) + 1) * (1 - REFUSED) - 1e-9)
    limit = np.sort(distances)[min(rank, len(distances)) - 1]
    # A little more, and never zero, because distances in batches of another size are rounded otherwise.
    return np.asarray(max(1.0001 * limit, 1e-2), "float32")


def _make_unit(features):
    features = np.asarray(features, "float32")
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)


@dataclass(eq=False)
class Familiar:
    """What is kept of a model's training images, to tell how unlike them other images are.

    The distance is that to the nearest training image (Sun et al. 2022, who divide features by their length, too),
    measured along at most 64 principal components of about equal spread, as in the distance of Mahalanobis (Lee et al.
    2018). Those in features and in statistics are each divided by the limit that the validation images set; the larger
    one counts.
    """

    ids: np.ndarray  # str (n,), of the training images
    statistics: _Space
    features: _Space | None

    @classmethod
    @_run_in_one_thread
    def fit(cls, features, statistics, ids, validation_features, validation_statistics):
        """Learn from training images, and set the limit so that at most 2 % of the validation images are beyond it.

        Parameters
        ----------
        features, validation_features : array (n, width) and (m, width), or None and None
            What the model makes of them, such as the inputs of its last layer.
        statistics, validation_statistics : array (n, k) and (m, k)
            From `describe_pixels`.
        ids : sequence of str
            Of the training images. At most `PROTOTYPES` of the n are kept, evenly spaced; the others are not used.

        Raises
        ------
        ValueError
            There are fewer than two training images or no validation image, their numbers differ, or values are
            missing.
        """
        ids, n_validation = np.asarray(ids, str), len(validation_statistics)
        pairs = [(np.asarray(statistics, "float32"), np.asarray(validation_statistics, "float32"))]
        if features is not None:
            pairs.append((_make_unit(features), _make_unit(validation_features)))
        if len(ids) < 2 or n_validation < 1 or any((len(a), len(b)) != (len(ids), n_validation) for a, b in pairs):
            raise ValueError(
                f"Expected values of two training images at least and of one validation image, got {len(ids)} ids and "
                f"values of {[len(values) for pair in pairs for values in pair]} images."
            )
        if not all(np.isfinite(values).all() for pair in pairs for values in pair):
            raise ValueError("Features or statistics have missing or infinite values.")
        kept = np.linspace(0, len(ids) - 1, min(len(ids), PROTOTYPES)).astype(int)
        spaces = [_Space.fit(known[kept], validation) for known, validation in pairs]
        familiar = cls(ids[kept], *spaces, *[None] * (2 - len(spaces)))
        limit = _find_limit(familiar.compare(validation_features, validation_statistics)[0])
        for space in filter(None, (familiar.statistics, familiar.features)):
            space.limit = space.limit * limit
        return familiar

    @_run_in_one_thread
    def compare(self, features, statistics):
        """Compare images with the training images.

        ``features`` are None where it was fitted without.

        Returns
        -------
        distance : float32 array (n,)
            As a multiple of the limit: above 1 an image is foreign. Infinite where features are missing.
        nearest : array of str (n,)
            The id of the nearest training image, by features where it was fitted with them.
        """
        distance, nearest = self.statistics.compare(np.asarray(statistics, "float32"))
        if self.features is not None:
            seen, nearest = self.features.compare(_make_unit(features))
            distance = np.maximum(distance, seen)
        return np.where(np.isnan(distance), np.float32(np.inf), distance), self.ids[nearest]

    @_run_in_one_thread
    def find_similar(self, features, statistics, count):
        """Find the training images that are most like each image, by what `compare` calls the nearest one by.

        Return an array of str (n, at most ``count``): their ids, the nearest first.
        """
        if self.features is not None:
            return self.ids[self.features.rank(_make_unit(features), count)]
        return self.ids[self.statistics.rank(np.asarray(statistics, "float32"), count)]

    def to_arrays(self):
        """Give all that it holds as a dict of arrays, 2 MB at most, for `helpers.training.saving.save_model`."""
        arrays = {"version": np.array(_VERSION), "ids": np.char.encode(self.ids, *_ENCODING)}
        for name in ("statistics", "features"):
            if (space := getattr(self, name)) is not None:
                arrays |= {f"{name}_{field.name}": np.asarray(getattr(space, field.name)) for field in fields(_Space)}
        return arrays

    @classmethod
    def from_arrays(cls, arrays):
        """Make it of the dict of `to_arrays`; raise ValueError if that is incomplete or of another version."""
        if arrays.get("version") != _VERSION:
            raise ValueError("What it keeps of its training images is of another version: save it again.")
        names = [name for name in ("statistics", "features") if f"{name}_mean" in arrays]
        try:
            spaces = {
                name: _Space(**{field.name: arrays[f"{name}_{field.name}"] for field in fields(_Space)})
                for name in names
            }
            return cls(np.char.decode(arrays["ids"], *_ENCODING), **{"features": None} | spaces)
        except (KeyError, TypeError) as error:
            raise ValueError(f"What it keeps of its training images is incomplete: {error}") from error


def summarize_distances(distances):
    """Count how many images of each kind are foreign, and how well their distance tells them from the first kind.

    ``distances`` is a table ``kind, distance, foreign``, of which the kind that comes first is known. The result has
    one row per kind: ``images``; ``refused``, the share beyond the limit; and ``roc_auc`` against the first kind.
    """
    kinds = distances.groupby("kind", sort=False)
    table = kinds["foreign"].agg(images="size", refused="mean")
    (_, first), *others = kinds["distance"]
    table["roc_auc"] = pd.Series(
        {
            kind: roc_auc_score(np.repeat([0, 1], [len(first), len(values)]), rankdata(np.r_[first, values]))
            for kind, values in others
        }
    )
    return table
