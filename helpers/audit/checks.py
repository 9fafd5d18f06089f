"""The checks: what may be wrong with files, pairs of images, groups, single images, labels and whole classes.

``images`` is the table of `helpers.audit.folders.read_folder`, ``pixels`` a uint8 array (n, side, side, 3) and
``features`` a float32 array (n, n_features), all in the same order. Each check returns a list of dict with the keys
`COLUMNS`; files, sets and classes that a finding does not have are empty.
"""

import hashlib
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from helpers.data import duplicates
from helpers.data.audit import join_groups
from helpers.data.reading import hash_contents
from helpers.data.split import split_by_group
from helpers.evaluation.baselines import compute_shortcut_features, fit_regression
from helpers.evaluation.scores import encode_labels

COLUMNS = ["kind", "relation", "file", "set", "class", "other_file", "other_set", "other_class", "number", "sentence"]
COPIES = ("exact copy", "near-duplicate", "crop or turn")
_THUMBNAIL = 32  # pixels
_CHUNK = 512  # images at a time
_ALL_PAIRS = 20  # files of the same content, of which more are only compared with the first one
_FOLDS = 5
_IMAGES_PER_COMPONENT, _COMPONENTS = 12, (16, 128)  # of the features: how many images one needs, the least and the most
_OUTLIER = 3  # robust standard deviations
_LEAST_DETAIL = 2  # grey levels: the standard deviation of an image that is blank
_BLURRED = 0.55  # of the finest detail and the next coarser: in photographs 0.6 and more, blurred ones 0.52 and less
_LEAST_CORRELATION = 0.95  # of crops: planted ones reach .96 and more, different chest X-rays up to .94
_SELF_CONFIDENCE = 0.1  # at most, of a class folder that is taken for wrong
_NEIGHBOURS, _MOST_OWN = 15, 1  # the nearest images; and how many of them may then lie in its class folder
_MOST_DOUBTFUL = 0.02  # of the images that are told as lying in the wrong folder: more are a hard task, not mistakes
_LEAST_STEP, _MOST_UNEVEN = 15, 8  # grey levels: from a frame inwards, and the standard deviation along it
_MOST_IMAGES = 2000  # that a shortcut is measured on
_SHUFFLES = 20
_SHORTCUTS = {  # ROC AUC from which one is told: all but the size may belong to a class
    "size": 0.7,
    "file size": 0.75,
    "brightness": 0.85,
    "colour": 0.9,
    "border": 0.85,
    "frame": 0.7,
}

_LOOK = "it may belong to the class, such as green leaves, or to the camera; look at images of each class"
_ADVICE = {
    "size": "a model may learn where images come from; bring all to one size, and test on images of another source",
    "file size": "classes may have been saved with other settings; save all in the same way",
    "frame": "an even line runs along the edge of the images of some classes; crop all images",
}


def find_unread(images, measured, unread):
    """Find the files that cannot be read, and, once for each reason, those that were changed in reading.

    ``measured`` is from `helpers.data.pixels.measure_images`; ``unread`` a dict of files that are no image that is
    read, and why.
    """
    findings = [_tell("unreadable", f"It {reason}.", {"path": name}) for name, reason in unread.items()]
    for row, error in zip(images.to_dict("records"), measured["error"], strict=True):
        if error:
            findings.append(_tell("unreadable", f"It cannot be read as an image: {error}.", row))
    for note, rows in images.groupby(measured["note"]):
        if note:
            sentence = f"{len(rows):,} images were changed in reading, such as this one: it {note}."
            findings.append(_tell("changed", sentence, rows.iloc[0], number=len(rows)))
    return findings


def find_pairs(images, folder, pixels, blank):
    """Find the pairs of images that show the same picture: a DataFrame ``first, second, kind, correlation``.

    Exact copies have the same bytes, or the same decoded pixels after they were resized. Blank images are left out.
    """
    hashes = pd.Series(hash_contents(images["path"], folder).values())
    decoded = pd.Series([hashlib.sha256(np.ascontiguousarray(image)).hexdigest() for image in pixels])
    grey = np.concatenate([_to_grey(pixels[start : start + _CHUNK]) for start in range(0, len(pixels), _CHUNK)])
    block = grey.shape[1] // _THUMBNAIL
    small = grey.reshape(len(grey), _THUMBNAIL, block, _THUMBNAIL, block).mean((2, 4)).round().astype("uint8")
    near = duplicates.find_near_duplicates(small[..., None])
    exact = [_pair_equal(keys) for keys in (hashes, decoded)]
    found = [table.assign(kind=COPIES[0], correlation=1.0) for table in exact] + [near.assign(kind=COPIES[1])]
    derived = duplicates.find_derived_copies(grey.round().astype("uint8")[..., None], _LEAST_CORRELATION)
    found.append(derived.assign(kind=COPIES[2]))
    pairs = pd.concat(found, ignore_index=True)[["first", "second", "kind", "correlation"]]
    pairs = pairs[~(blank[pairs["first"]] | blank[pairs["second"]])]
    return pairs.drop_duplicates(["first", "second"], ignore_index=True)


def find_copies(images, pairs):
    """Find copies across sets or classes, and within; each image is told once with the gravest of its pairs.

    Photographs of one known group within a set and class may be alike: only exact copies of them are told.
    """
    sets, labels, groups = (images[name].to_numpy() for name in ("set", "label", "group"))
    first, second = pairs["first"].to_numpy(), pairs["second"].to_numpy()
    differ = [_differ(values[first], values[second]) for values in (labels, sets)]
    relation = np.select(differ, ["across classes", "across sets"], "within")
    told = (relation != "within") | (groups[first] != groups[second]) | (pairs["kind"] == COPIES[0]).to_numpy()
    table = pairs.assign(relation=relation)[told]
    order = table["relation"].map({"across classes": 0, "across sets": 1, "within": 2})
    table = table.assign(order=order).sort_values(["order", "correlation"], ascending=[True, False], kind="stable")
    means = {
        COPIES[0]: "They are the same image",
        COPIES[1]: "They show the same picture, upright, turned or mirrored",
        COPIES[2]: "They show the same: one is a crop of the other, slightly turned, or photographed again",
    }
    risks = {
        "across classes": "one of their labels is wrong",
        "across sets": "a model would be tested on what it has seen",
        "within": "it counts twice",
    }
    rows = images.to_dict("records")
    return [
        _tell(
            row.kind, f"{means[row.kind]}: {risks[row.relation]}.", rows[row.first], rows[row.second], row.correlation,
            row.relation,
        )
        for row in table.drop_duplicates("second").itertuples()
    ]  # fmt: skip


def find_shared_groups(images):
    """Find the groups that have images in two sets or more."""
    findings, known = [], images[images["set"].notna()]
    for name, rows in known.groupby("group", sort=False):
        ends = rows.drop_duplicates("set").to_dict("records")
        if len(ends) > 1:
            sets = " and ".join(sorted(row["set"] for row in ends))
            sentence = (
                f"The group {name} has {len(rows)} images in {sets}: a model would be tested on whom it has seen."
            )
            findings.append(_tell("shared group", sentence, *ends[:2], len(rows), "across sets"))
    return findings


def measure_looks(pixels):
    """Measure how images look: a DataFrame of the grey levels ``p1, p50, p99``, ``detail`` and ``sharpness``.

    ``detail`` is the standard deviation of the grey levels. ``sharpness`` compares the strongest detail of 1 pixel with
    that of 2 pixels, of a difference of Gaussians: the 97th percentiles, their ratio. Blurring takes the finer first.
    """
    tables = []
    for start in range(0, len(pixels), _CHUNK):
        grey = _to_grey(pixels[start : start + _CHUNK])
        p1, p50, p99 = np.percentile(grey, (1, 50, 99), axis=(1, 2))
        once, twice = (gaussian_filter(grey, (0, sigma, sigma)) for sigma in (1, 2))
        fine, coarse = (np.percentile(np.abs(band), 97, axis=(1, 2)) for band in (grey - once, once - twice))
        looks = {"p1": p1, "p50": p50, "p99": p99, "detail": grey.std((1, 2))}
        tables.append(pd.DataFrame(looks | {"sharpness": (fine + 0.1) / (coarse + 0.3)}))
    return pd.concat(tables, ignore_index=True)


def find_odd_images(images, looks):
    """Find blank, dark, over-exposed and blurred images: odd by themselves, and far from the others of the folder.

    ``looks`` is from `measure_looks`. So the folder's own darkness or softness is no fault.
    """
    typical = looks.median()
    sharpness = _standardize(np.log(looks["sharpness"]))
    rules = {
        "blank": (
            looks["detail"] < _LEAST_DETAIL,
            "detail",
            "Its grey levels differ by {:.1f} only: it shows nothing.",
        ),
        "dark": (
            (looks["p99"] < typical["p99"] / 2) & (_standardize(looks["p99"]) < -_OUTLIER),
            "p99",
            f"Its lightest part has the level {{:.0f}} of 255, usual is {typical['p99']:.0f}.",
        ),
        "over-exposed": (
            (255 - looks["p1"] < (255 - typical["p1"]) / 3)
            & (looks["p50"] > 200)
            & (_standardize(looks["p1"]) > _OUTLIER),
            "p1",
            f"Its darkest part has the level {{:.0f}} of 255, usual is {typical['p1']:.0f}.",
        ),
        "blurred": (
            (looks["sharpness"] < _BLURRED) & (sharpness < -_OUTLIER),
            "sharpness",
            f"Its sharpness is {{:.2f}}, usual is {typical['sharpness']:.2f}.",
        ),
    }
    findings, odd = [], np.zeros(len(images), bool)
    for kind, (flags, name, meaning) in rules.items():
        for row in np.flatnonzero(flags.to_numpy() & ~odd):
            value = looks[name].iloc[row]
            findings.append(_tell(kind, meaning.format(value), images.iloc[row], number=value))
        odd |= flags.to_numpy()
    return findings


def find_wrong_folders(images, features, pairs, blank):
    """Find the images that a model which has not seen them takes for another class, as their nearest images do.

    A logistic regression on the principal components of the features predicts each fifth of the groups from the other
    four; copies are in the same fifth. Told is an image to whose class the model gives less than 10 %, and at most one
    of its 15 nearest images belongs, where half of them usually do; of all images at most 2 %, the surest ones. Images
    with a copy in another class are left out: `find_copies` tells them.
    """
    labels, images = images["label"].to_numpy(), _list_comparable(images, pairs, blank)
    if images["label"].nunique() < 2:
        return []
    components = min(max(len(images) // _IMAGES_PER_COMPONENT, _COMPONENTS[0]), _COMPONENTS[1], *features.shape)
    x = PCA(components, svd_solver="randomized", random_state=0).fit_transform(features[images.index])
    names, y_prob = _cross_validate(x, images)
    codes = encode_labels(images["label"], names)
    given, suggested = y_prob[range(len(codes)), codes], y_prob.argmax(axis=1)
    own = _count_own(x, codes, images["group"].factorize()[0])
    usual = pd.Series(own).groupby(codes).transform("median").to_numpy()
    ends = pairs[["first", "second"]].to_numpy()
    told = images.index.isin(ends[_differ(*labels[ends.T])].ravel())
    doubtful = (given < _SELF_CONFIDENCE) & (own <= _MOST_OWN) & (usual >= _NEIGHBOURS / 2) & ~told
    doubtful = np.flatnonzero(doubtful)
    surest = doubtful[np.argsort(given[doubtful], kind="stable")][: int(np.ceil(_MOST_DOUBTFUL * len(images)))]
    rows, findings = images.to_dict("records"), []
    for row in surest:
        name = names[suggested[row]]
        sentence = (
            f"It may lie in the wrong folder: a model that has not seen it gives {given[row]:.1%} to its class and "
            f"{y_prob[row].max():.1%} to {name}; of the {_NEIGHBOURS} images most like it {own[row]} belong to its "
            "class."
        )
        findings.append(_tell("class folder", sentence, rows[row], {"label": name}, given[row]))
    return findings


def _count_own(x, codes, groups):
    """Count how many of the nearest images of other groups have the class of each image."""
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)
    count, own = min(_NEIGHBOURS, len(x) - 1), []
    for rows in np.array_split(np.arange(len(x)), len(x) // _CHUNK + 1):
        alike = np.where(groups[rows, None] == groups, -np.inf, x[rows] @ x.T)
        nearest = np.argpartition(-alike, count - 1, axis=1)[:, :count]
        own.append((codes[nearest] == codes[rows, None]).sum(axis=1))
    return np.concatenate(own)


def find_shortcuts(images, pixels, measured, file_sizes, pairs, blank):
    """Find what tells the classes apart without a look at the content: size, file size, brightness, colour, border.

    At most 2,000 images are described; a logistic regression predicts each fifth of the groups from the other four.
    Told is what reaches a ROC AUC that no content should need, more than with shuffled labels.
    """
    images = _list_comparable(images, pairs, blank, _MOST_IMAGES)
    if images["label"].nunique() < 2:
        return []
    rows = images.index.to_numpy()
    sizes = measured.iloc[rows]
    table = compute_shortcut_features(pixels, rows, sizes)
    colours = measured.iloc[rows][["red", "green", "blue"]].to_numpy()
    levels = [table.filter(regex=f"brightness {name} ").mean(axis=1) for name in ("mean", "std", "p5", "p95")]
    area = (sizes["width"] * sizes["height"]).to_numpy()
    parts = np.array_split(rows, len(rows) // _CHUNK + 1)
    described = {
        "size": table.filter(regex="^size ").to_numpy(),
        "file size": np.stack([np.log(file_sizes[rows]), np.log(file_sizes[rows] / area)], axis=1),
        "brightness": np.stack(levels, axis=1),
        "colour": colours - colours.mean(axis=1, keepdims=True),
        "border": table.filter(regex="^border ").to_numpy("float64"),
        "frame": np.concatenate([_measure_frame(pixels[part]) for part in parts]),
    }
    findings = []
    for name, values in described.items():
        if np.ptp(values, axis=0).max() < 1e-6:  # all the same, as the colours of grey images
            continue
        value, shuffled, label = _score_shortcut(values, images)
        if value >= _SHORTCUTS[name] and value > shuffled:
            classes = sorted(images["label"].unique(), key=lambda other: (other != label, other))
            other = classes[1] if len(classes) == 2 else ""
            sentence = (
                f"The {name} alone tells {label} from {other or 'the other classes'} with a ROC AUC of {value:.3f} (by "
                f"chance at most {shuffled:.3f}): {_ADVICE.get(name, _LOOK)}."
            )
            findings.append(_tell("shortcut", sentence, {"label": label}, {"label": other}, value))
    return findings


def _measure_frame(pixels):
    """Tell on which sides an even line runs along the edge, with a step to the fifth pixel: float32 array (n, 4)."""
    grey = _to_grey(pixels)
    outer, inner = (np.stack(_list_sides(grey, place), axis=1) for place in (0, 4))
    step = np.abs(outer.mean(axis=2) - inner.mean(axis=2))
    return ((step > _LEAST_STEP) & (outer.std(axis=2) < _MOST_UNEVEN)).astype("float32")


def _list_sides(grey, place):
    """List the lines of pixels so far from each side."""
    return grey[:, place], grey[:, -1 - place], grey[:, :, place], grey[:, :, -1 - place]


def _list_comparable(images, pairs, blank, most=None):
    """List the images of the classes that have enough groups to be divided; copies belong to one group."""
    images = images.assign(group=join_groups(images, pairs=pairs))[images["label"].notna() & ~blank]
    if most and len(images) > most:
        images = images.sample(most, random_state=0)
    own = images.drop_duplicates("group")["label"].value_counts()  # a group counts for one class
    return images[images["label"].isin(own.index[own >= 2 * _FOLDS])]


def _score_shortcut(values, images):
    """Score a description: the highest ROC AUC of a class, that with shuffled labels, and the class."""
    values = values - values.mean(axis=0)
    names, y_prob = _cross_validate(np.concatenate([values, values**2], axis=1), images)
    labels, rng = images["label"].to_numpy(), np.random.default_rng(0)

    def score(labels):
        return max((roc_auc_score(labels == name, y_prob[:, code]), name) for code, name in enumerate(names))

    value, label = score(labels)
    return value, max(score(rng.permutation(labels))[0] for _ in range(_SHUFFLES)), label


def _cross_validate(x, images):
    """Predict each image by a regression on the images of other groups: the class names, and probabilities."""
    names = sorted(images["label"].unique())
    one_hot = (images["label"].to_numpy()[:, None] == np.array(names, dtype="object")).astype("float32")
    folds = split_by_group(images, dict.fromkeys(range(_FOLDS), 1 / _FOLDS)).to_numpy()
    y_prob = np.zeros(one_hot.shape)
    for fold in range(_FOLDS):
        y_prob[folds == fold] = fit_regression(x[folds != fold], one_hot[folds != fold]).predict_proba(x[folds == fold])
    return names, y_prob


def _tell(kind, sentence, row=None, other=None, number=np.nan, relation=""):
    """Make a finding about one image, or two."""
    cells = {"kind": kind, "relation": relation}
    for prefix, about in (("", row), ("other_", other)):
        for name, column in (("file", "path"), ("set", "set"), ("class", "label")):
            value = None if about is None else about.get(column)
            cells[prefix + name] = "" if value is None else value
    return cells | {"number": round(float(number), 4), "sentence": sentence}


def _pair_equal(keys):
    """Pair the rows with equal keys: each with each, or where there are many each with the first."""
    pairs = []
    for rows in keys.groupby(keys).indices.values():
        pairs += combinations(rows, 2) if len(rows) <= _ALL_PAIRS else [(rows[0], row) for row in rows[1:]]
    return pd.DataFrame(pairs, columns=["first", "second"], dtype=int)


def _differ(first, second):
    """Tell where two arrays of values differ and neither is missing."""
    known = ~(pd.isna(first) | pd.isna(second))
    return known & (first != second)


def _standardize(values):
    """Give robust z-scores: the distance to the median in median absolute deviations of the same side."""
    distance = values - values.median()
    below, above = (side.abs().median() for side in (distance[distance <= 0], distance[distance >= 0]))
    return distance / (1.4826 * np.where(distance < 0, below, above)).clip(1e-6)


def _to_grey(pixels):
    """Average the channels: float32 array (n, side, side)."""
    return np.asarray(pixels).mean(axis=-1, dtype="float32")
