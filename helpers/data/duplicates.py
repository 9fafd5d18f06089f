"""Images that show the same picture: near-duplicates, whichever way up, and copies that were cropped or turned.

The first are found by perceptual hashing, the second by key points.
"""

from functools import partial
from itertools import product

import numpy as np
import pandas as pd
from scipy.fft import dctn

from helpers.parallel import run_in_parallel
from helpers.progress import open_stage, track

_SIDE = 8  # of the block of low frequencies that makes the hash
_LOWEST = 4  # frequencies below this sum of both directions are left out of the comparison
_CHUNK = 2**25  # comparisons at a time
_ORIENTATIONS = list(product((0, 1), repeat=3))  # turned, upside down, mirrored

_LEAST_SIDE = 64  # of images in which key points are looked for
_MOST_POINTS, _LEAST_POINTS = 100, 8  # key points of an image; and those of two images that have to lie alike
_WORDS, _SAMPLE = 32, 20_000  # of the vocabulary of key points; and the key points that it is made from
_COMPONENTS, _FITTED = 256, 2000  # principal directions of these sums; and the images that they are fitted to, at most
_LEAST_OVERLAP = 0.5  # of the area of one of the two images
_LEAST_AREA = 0.1  # of the second image laid on the first
# SIFT describes a key point by 4 x 4 cells of 8 directions: this is the same description in a mirror.
_IN_A_MIRROR = np.arange(128).reshape(4, 4, 8)[::-1, :, -np.arange(8)].ravel()


def find_near_duplicates(thumbnails, most_bits=6, least_correlation=0.98):
    """Find the pairs of images that show the same picture, mirrored or turned by a multiple of 90 degrees or not.

    First a perceptual hash: 63 bits, the signs of the low frequencies of the cosine transform (Zauner 2010), for which
    the eight orientations of an image are changes of sign and a transposition. Then the images whose hashes differ in
    few bits are compared in all but the lowest frequencies, because from afar one mole looks like another.

    Parameters
    ----------
    thumbnails : uint8 array (n, side, side, 1)
        Grey and square, with a side of 16 pixels or more (otherwise ValueError); may be memory-mapped.
    most_bits, least_correlation : int, float
        In how many of the 63 bits the hashes may differ; and how alike the detail has to be, at most 1.

    Returns
    -------
    DataFrame with one row per pair: ``first`` and ``second``, the positions of the images, ``first < second``;
    ``bits``, how many differ, and ``correlation``, in the best orientation.
    """
    if thumbnails.ndim != 4 or thumbnails.shape[1] != thumbnails.shape[2] or thumbnails.shape[3] != 1:
        raise ValueError(f"Thumbnails of shape {thumbnails.shape}: expected (n, side, side, 1).")
    if thumbnails.shape[1] < 2 * _SIDE:
        raise ValueError(f"Thumbnails of {thumbnails.shape[1]} pixels: expected at least {2 * _SIDE}.")
    frequencies = dctn(np.asarray(thumbnails[..., 0], "float32"), axes=(1, 2), norm="ortho")
    low = frequencies[:, :_SIDE, :_SIDE]  # of which the first is the mean level
    signs = [_orient(low, orientation).reshape(-1, _SIDE**2)[:, 1:] > 0 for orientation in _ORIENTATIONS]
    candidates = _find_candidates(np.packbits(signs, axis=-1).view("uint64")[..., 0], most_bits)
    candidates["correlation"] = _correlate(frequencies, candidates)
    pairs = candidates[candidates["correlation"] >= least_correlation].sort_values("correlation", ascending=False)
    pairs = pairs.drop_duplicates(["first", "second"]).drop(columns="orientation")
    return pairs.sort_values(["first", "second"], ignore_index=True)


def _orient(frequencies, orientation):
    """Give the frequencies of the images in another orientation."""
    turned, upside_down, mirrored = orientation
    odd = np.where(np.arange(frequencies.shape[1]) % 2, -1, 1).astype("float32")
    oriented = frequencies * (odd[:, None] if upside_down else 1) * (odd if mirrored else 1)
    return oriented.transpose(0, 2, 1) if turned else oriented


def _find_candidates(hashes, most_bits):
    """Find the pairs whose hashes (8, n) differ in so few bits, in some orientation of the second image."""
    found, step = [np.empty((0, 4), int)], max(1, _CHUNK // max(1, hashes.size))
    for start in track(range(0, hashes.shape[1], step), "looking for near-duplicates", unit="step"):
        bits = np.bitwise_count(hashes[0, start : start + step, None, None] ^ hashes[None, :, start:])
        first, orientation, second = places = np.argwhere(bits <= most_bits).T
        pairs = np.stack([first + start, second + start, orientation, bits[tuple(places)]], axis=1)
        found.append(pairs[second > first])
    return pd.DataFrame(np.concatenate(found), columns=["first", "second", "orientation", "bits"])


def _correlate(frequencies, candidates):
    """Correlate the images of each pair, the second one in its orientation, but for the lowest frequencies."""
    across = np.arange(frequencies.shape[1])
    detail = np.where(across[:, None] + across < _LOWEST, 0, frequencies)
    # An image without detail of at least half a grey level is blank: it correlates with none.
    detail /= np.maximum(np.linalg.norm(detail, axis=(1, 2), keepdims=True), 0.5 * len(across))
    correlation = np.empty(len(candidates))
    for number, orientation in enumerate(_ORIENTATIONS):
        rows = np.flatnonzero(candidates["orientation"] == number)
        for part in np.array_split(rows, len(rows) // 4096 + 1):
            first, second = (detail[candidates[which].to_numpy()[part]] for which in ("first", "second"))
            correlation[part] = (first * _orient(second, orientation)).sum(axis=(1, 2))
    return correlation


def find_derived_copies(pixels, least_correlation=0.94, neighbours=5, candidates=None):
    """Find the pairs of images of which one was made from the other: cropped, turned, mirrored or several of these.

    Each image has up to 100 key points (SIFT, Lowe 2004). Images are compared by the sum of what is particular to their
    key points (VLAD, Jégou et al. 2010), in 256 principal directions, and each with its nearest neighbours also point
    by point. Where some points of two images lie alike but for an affine map, one image is laid on the other, and they
    are correlated where they overlap, in all but the lowest frequencies, because from afar one mole looks like another.
    The map may have a shear, as a turn has of an image that was not square before. Images without detail, with fewer
    than 8 key points, are in no pair.

    Parameters
    ----------
    pixels : uint8 array (n, side, side, 1)
        Grey and square, with a side of 64 pixels or more (otherwise ValueError); may be memory-mapped. The limits were
        chosen at 96 pixels.
    least_correlation : float
        How alike the detail has to be, at most 1. Different chest X-rays, laid on one another, reach 0.93.
    neighbours : int
        How many images each is compared with.
    candidates : DataFrame, optional
        Pairs ``first``, ``second``, positions of images, that are compared instead of the nearest neighbours.

    Returns
    -------
    DataFrame with one row per pair: ``first`` and ``second``, the positions of the images, ``first < second``; what
    lays the second on the first: whether it is ``mirrored`` from left to right, then the ``scale``, below 1 where the
    second is a part of the first, and the ``angle``, in degrees, counter-clockwise; and the ``correlation``.
    """
    from threadpoolctl import threadpool_limits

    if pixels.ndim != 4 or pixels.shape[1] != pixels.shape[2] or pixels.shape[3] != 1:
        raise ValueError(f"Pixels of shape {pixels.shape}: expected (n, side, side, 1).")
    if pixels.shape[1] < _LEAST_SIDE:
        raise ValueError(f"Images of {pixels.shape[1]} pixels: expected a side of at least {_LEAST_SIDE}.")
    parts = np.array_split(np.arange(len(pixels)), len(pixels) // 64 + 1)
    described = {}
    with open_stage("looking for copies, finding key points", len(pixels)) as stage:
        for position, found in run_in_parallel(_describe, (pixels[part] for part in parts)):
            described[position] = found
            stage.update(len(found))
    points = [about for position in sorted(described) for about in described[position]]
    if candidates is None:
        with open_stage("looking for copies, finding similar images", len(pixels)) as stage:
            pairs = _find_neighbours([descriptors for _, descriptors in points], neighbours, stage)
    else:
        pairs = np.sort(candidates[["first", "second"]].to_numpy(int).reshape(-1, 2), axis=1)
    pairs = [(first, second, mirrored) for first, second in np.unique(pairs, axis=0) for mirrored in (False, True)]
    parts = [pairs[start : start + 64] for start in range(0, len(pairs), 64)]
    items = ([(*pair, *([pixels[row, ..., 0], *points[row]] for row in pair[:2])) for pair in part] for part in parts)
    rows = []
    with open_stage("looking for copies, comparing similar images", len(pairs), "pair") as stage:
        for position, compared in run_in_parallel(_compare, items, context=partial(threadpool_limits, 1)):
            rows += [row for row in compared if row[-1] >= least_correlation]
            stage.update(len(parts[position]))
    found = pd.DataFrame(rows, columns=["first", "second", "scale", "angle", "mirrored", "correlation"])
    found = found.astype({"first": int, "second": int, "mirrored": bool, "correlation": float})
    found = found.sort_values("correlation", ascending=False, kind="stable").drop_duplicates(["first", "second"])
    return found.sort_values(["first", "second"], ignore_index=True)


def _describe(images):
    """Find the key points of images: a list of their places (m, 2) and their descriptions, uint8 (m, 128)."""
    import cv2

    sift, found = cv2.SIFT_create(_MOST_POINTS, contrastThreshold=0.01), []
    for image in np.ascontiguousarray(images[..., 0]):
        points, descriptors = sift.detectAndCompute(image, None)
        places = np.array([point.pt for point in points], "float32").reshape(-1, 2)
        found.append((places, np.zeros((0, 128), "uint8") if descriptors is None else descriptors.astype("uint8")))
    return found


def _take_roots(descriptors):
    """Take the roots of descriptions of sum 1, whose products compare them best (Arandjelović and Zisserman 2012)."""
    descriptors = descriptors.astype("float32")
    return np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1))


def _find_neighbours(descriptors, neighbours, stage):
    """Find the pairs of images with the most similar key points, mirrored or not: an array (m, 2)."""
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import normalize
    from sklearn.utils.extmath import randomized_svd
    from threadpoolctl import threadpool_limits

    several = np.concatenate([np.zeros((0, 128), "uint8"), *descriptors])
    usable = np.flatnonzero([len(those) >= _LEAST_POINTS for those in descriptors])
    count, found = min(neighbours, len(usable) - 1), [np.empty((0, 2), int)]
    if count < 1:
        return found[0]
    sample = np.random.default_rng(0).choice(several, min(_SAMPLE, len(several)), replace=False)
    sample = np.unique(_take_roots(sample), axis=0)
    with threadpool_limits(1):  # all products but those of many images are small
        words = KMeans(min(_WORDS, len(sample)), n_init=1, max_iter=20, random_state=0).fit(sample).cluster_centers_
        summed = np.stack([_summarize(descriptors[row], words) for row in usable])
        some = summed[:: len(summed) // _FITTED + 1]
        axes = randomized_svd(some, min(_COMPONENTS, len(some)), random_state=0)[2]
        summed = normalize(summed @ axes.T)
    for start in range(0, len(usable), 256):
        rows = usable[start : start + 256]
        with threadpool_limits(1):
            mirror = np.stack([_summarize(descriptors[row][:, _IN_A_MIRROR], words) for row in rows])
            mirror = normalize(mirror @ axes.T)
        alike = np.maximum(summed[start : start + 256] @ summed.T, mirror @ summed.T)
        alike[np.arange(len(rows)), np.arange(start, start + len(rows))] = -np.inf
        nearest = usable[np.argpartition(-alike, count - 1, axis=1)[:, :count]]
        found.append(np.stack([np.repeat(rows, count), nearest.ravel()], axis=1))
        stage.update(len(rows))
    return np.sort(np.concatenate(found), axis=1)


def _summarize(descriptors, words):
    """Sum up how key points differ from the nearest word each, in a vector of norm 1 (VLAD)."""
    roots = _take_roots(descriptors)
    nearest = np.eye(len(words), dtype="float32")[(roots @ words.T - (words**2).sum(axis=1) / 2).argmax(axis=1)]
    sums = nearest.T @ roots - nearest.sum(axis=0)[:, None] * words
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)
    return sums.ravel() / max(np.linalg.norm(sums), 1e-6)


def _compare(pairs):
    """Lay the second image of each pair on the first: a list of rows of `find_derived_copies`."""
    import cv2

    rows = []
    for first, second, mirrored, (image, places, descriptors), (other, others, described) in pairs:
        if mirrored:
            other, described = np.ascontiguousarray(other[:, ::-1]), described[:, _IN_A_MIRROR]
            others = [other.shape[1] - 1, 0] + others * np.float32([-1, 1])
        if min(len(places), len(others)) < _LEAST_POINTS:
            continue
        alike = _take_roots(descriptors) @ _take_roots(described).T
        nearest = alike.argmax(axis=1)
        matched = np.flatnonzero(alike.argmax(axis=0)[nearest] == np.arange(len(alike)))
        if len(matched) < _LEAST_POINTS:
            continue
        way, inside = cv2.estimateAffine2D(  # images that were made square are sheared by a turn
            others[nearest[matched]], places[matched], ransacReprojThreshold=image.shape[0] / 48, maxIters=500
        )
        if way is None or inside.sum() < _LEAST_POINTS or (area := np.linalg.det(way[:, :2])) < _LEAST_AREA:
            continue
        scale, angle = np.sqrt(area), np.degrees(np.arctan2(way[0, 1] - way[1, 0], way[0, 0] + way[1, 1]))
        # What a turn leaves empty lies outside of the original: laid on the copy, the original covers its true part.
        back = cv2.invertAffineTransform(way)
        correlation = max(_correlate_overlap(image, other, way), _correlate_overlap(other, image, back))
        rows.append((first, second, scale, angle, mirrored, correlation))
    return rows


def _correlate_overlap(image, other, way):
    """Correlate an image with another one, laid on it in this way, where they overlap, but for low frequencies."""
    import cv2

    side = image.shape[0]
    laid, overlap = (
        cv2.warpAffine(pixels, way, (side, side))
        for pixels in (other.astype("float32"), np.ones((side, side), "float32"))
    )
    overlap = (overlap > 0.99).astype("float32")
    if overlap.mean() < _LEAST_OVERLAP:
        return 0.0

    def blur(pixels, sigma):
        return cv2.GaussianBlur(pixels * overlap, (0, 0), sigma) / np.maximum(
            cv2.GaussianBlur(overlap, (0, 0), sigma), 1e-3
        )

    details = [
        (blur(pixels, side / 96) - blur(pixels, side / 12)) * overlap for pixels in (image.astype("float32"), laid)
    ]
    first, second = (detail / max(np.linalg.norm(detail), 0.5 * side) for detail in details)
    return float((first * second).sum())
