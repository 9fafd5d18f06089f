"""Images that show the same picture: near-duplicates, whichever way up, and copies that were cropped or turned.

The first are found by perceptual hashing, the second by key points.
"""

import sys
from functools import partial
from itertools import combinations, product
from math import comb
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.fft import dctn

from helpers.files import release_pages
from helpers.parallel import run_in_parallel
from helpers.progress import open_stage

THUMBNAIL = (32, 32, 1)  # height, width, channels: what near-duplicates are found in
DETAIL = (96, 96, 1)  # and copies that were cropped or tilted
_SIDE = 8  # of the block of low frequencies that makes the hash
_BITS = np.setdiff1d(np.arange(_SIDE**2), 56).astype("uint64")  # of a hash, without the padding of `np.packbits`
_LOWEST = 4  # frequencies below this sum of both directions are left out of the comparison
_IMAGES, _TILE, _COMPARISONS, _PAIRS = 512, 4096, 2**20, 1024  # at a time: images, those before them, and pairs
_OF_ONE_HASH, _FIRST = 64, 8  # images that are compared with all others; further ones with the first of these only
_OF_ONE_IMAGE = 128  # pairs with images before it
_ORIENTATIONS = list(product((0, 1), repeat=3))  # turned, upside down, mirrored
_LOWER = 2**32 - 1  # the half of a number that holds an image
_COLUMNS = {"first": int, "second": int, "bits": int, "correlation": float}
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

    Hashes that differ in few bits are equal in some blocks of bits, so that only images that agree in these are
    compared, and no pair is lost (Manku et al. 2007). Masses are bounded: of more than 64 images of one hash, each
    further one is compared with the first 8 only; and of more than 128 images before it that show the same, an image
    is paired with the first 128. Thousands of copies of one image are joined to one group all the same, unless the
    first 8 of their hash show something else. A line says for how many images it was so.

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
    parts = [slice(start, start + _IMAGES) for start in range(0, len(thumbnails), _IMAGES)]
    hashes, norms = np.empty((len(_ORIENTATIONS), len(thumbnails)), "uint64"), np.empty(len(thumbnails), "float32")
    found, bounded = [], 0
    with open_stage("looking for near-duplicates", 2 * len(thumbnails)) as stage:
        for number, described in run_in_parallel(_hash, (thumbnails[part] for part in parts)):
            hashes[:, parts[number]], norms[parts[number]] = described
            release_pages(thumbnails)
            stage.update(described[1].size)
        index = _index_hashes(hashes, norms >= least_correlation - 1e-4, most_bits)
        shared = thumbnails, index, most_bits, least_correlation
        for number, (pairs, count) in run_in_parallel(_find_pairs, parts, shared):
            found.append(pairs)
            bounded += count
            release_pages(thumbnails)
            stage.update(norms[parts[number]].size)
    if bounded:
        sys.stdout.write(
            f"{bounded:,} images look like so many others that they were compared with the first of them only\n"
        )
    table = pd.concat([pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in _COLUMNS.items()}), *found])
    return table.sort_values(["first", "second"], ignore_index=True)


def _transform(thumbnails):
    """Compute the frequencies (n, side, side) of thumbnails."""
    return dctn(np.asarray(thumbnails[..., 0], "float32"), axes=(1, 2), norm="ortho")


def _orient(frequencies, orientation):
    """Give the frequencies of the images in another orientation."""
    turned, upside_down, mirrored = orientation
    odd = np.where(np.arange(frequencies.shape[1]) % 2, -1, 1).astype("float32")
    oriented = frequencies * (odd[:, None] if upside_down else 1) * (odd if mirrored else 1)
    return oriented.transpose(0, 2, 1) if turned else oriented


def _take_detail(frequencies):
    """Take all but the lowest frequencies, with a norm of 1, or less for images that are nearly blank."""
    across = np.arange(frequencies.shape[1])
    detail = np.where(across[:, None] + across < _LOWEST, 0, frequencies)
    # An image without detail of at least half a grey level is blank: it correlates with none.
    detail /= np.maximum(np.linalg.norm(detail, axis=(1, 2), keepdims=True), 0.5 * len(across))
    return detail


def _hash(thumbnails):
    """Hash thumbnails in all orientations, uint64 (8, n); and compute the norm of their detail."""
    frequencies = _transform(thumbnails)
    low = frequencies[:, :_SIDE, :_SIDE]  # of which the first is the mean level
    signs = [_orient(low, orientation).reshape(-1, _SIDE**2)[:, 1:] > 0 for orientation in _ORIENTATIONS]
    return np.packbits(signs, axis=-1).view("uint64")[..., 0], np.linalg.norm(_take_detail(frequencies), axis=(1, 2))


class _Index(NamedTuple):
    """Where to look for hashes like another one."""

    hashes: np.ndarray  # uint64 (8, n)
    alone: np.ndarray  # bool (n,), the images that are compared with all others
    by_hash: np.ndarray  # the other images that are compared, and these, of each hash in their order
    begins: np.ndarray  # (n,), for an image that is compared with the first of its hash only, where these are there
    blocks: list  # of arrays, the bits of a hash that make up a block
    keys: list  # of pairs, some blocks, and the sorted numbers of what images have in them and of the images


def _index_hashes(hashes, seen, most_bits):
    """Index the hashes (8, n) of the images that are ``seen``, bool (n,)."""
    by_hash = np.flatnonzero(seen)
    by_hash = by_hash[np.argsort(hashes[0, by_hash], kind="stable")]
    _, starts, counts = np.unique(hashes[0, by_hash], return_index=True, return_counts=True)
    begins, is_first = np.full(len(seen), -1), np.arange(len(by_hash)) - starts.repeat(counts) < _OF_ONE_HASH
    begins[by_hash[~is_first]] = starts.repeat(counts)[~is_first]
    alone = seen & (begins < 0)
    rows = np.flatnonzero(alone)

    def estimate(agreeing):  # of so many blocks that have to agree, what the search takes: keys, and their buckets
        bits = 63 * agreeing / (most_bits + agreeing) if agreeing else 0
        return comb(most_bits + agreeing, agreeing) * (20 + len(rows) / 2 * 2 ** (-0.8 * bits))

    agreeing = min(range(4), key=estimate)
    # Bits that are set in half of the images fill buckets evenly: each block has some of them.
    shares = [((hashes[0, rows] >> bit) & np.uint64(1)).mean() if len(rows) else 0 for bit in _BITS]
    bits, count = _BITS[np.argsort(np.abs(np.array(shares) - 0.5), kind="stable")], most_bits + agreeing
    blocks = [bits[number::count][: 31 // agreeing] for number in range(count)] if agreeing else []
    codes = [_pick(hashes[0, rows], block) for block in blocks]
    keys = [(some, np.sort(_join(codes, blocks, some) + rows)) for some in combinations(range(len(blocks)), agreeing)]
    return _Index(hashes, alone, by_hash, begins, blocks, keys)


def _pick(hashes, block):
    """Pick a block of bits from hashes: int64."""
    picked = np.zeros(hashes.shape, "uint64")
    for place, bit in enumerate(block):
        picked |= ((hashes >> bit) & np.uint64(1)) << np.uint64(place)
    return picked.astype("int64")


def _join(codes, blocks, some):
    """Join what was picked for some blocks in the upper half of a number, int64; the lower half is for an image."""
    joined = np.int64(0)
    for number in some:
        joined = (joined << len(blocks[number])) | codes[number]
    return joined << 32


def _find_pairs(part, thumbnails, index, most_bits, least_correlation):
    """Find the pairs whose second image is in a part of the images, a slice; and how many of these were bounded."""
    members = np.arange(len(thumbnails))[part]
    further = members[index.begins[members] >= 0]
    firsts = index.by_hash[index.begins[further][:, None] + np.arange(_FIRST)]
    again = np.zeros((2, firsts.size), "int32")  # no bit differs, upright
    found = [np.stack([firsts.ravel(), further.repeat(_FIRST), *again], dtype="int32", casting="same_kind")]
    found += _list_candidates(members[index.alone[members]], index, most_bits)
    table = pd.DataFrame(np.concatenate(found, axis=1).T, columns=["first", "second", "bits", "orientation"])
    table["correlation"] = _correlate(thumbnails, table, part)
    table = table[table["correlation"] >= least_correlation].sort_values("correlation", ascending=False, kind="stable")
    table = table.drop_duplicates(["first", "second"]).drop(columns="orientation").sort_values(["second", "first"])
    crowd = table.groupby("second").cumcount() >= _OF_ONE_IMAGE
    return table[~crowd].astype(_COLUMNS), len(further) + table["second"][crowd].nunique()


def _list_candidates(seconds, index, most_bits):
    """List the pairs whose hashes differ in so few bits, in some orientation of the second image, one of those given.

    Yield int32 arrays (4, m): the first and second images, the bits and the orientations.
    """
    hashes = index.hashes[:, seconds]
    codes = [_pick(hashes, block) for block in index.blocks]
    masks = [np.bitwise_or.reduce(np.uint64(1) << block) for block in index.blocks]
    hashes, orientations = hashes.ravel(), np.arange(len(_ORIENTATIONS)).repeat(len(seconds))
    seconds = np.tile(seconds, len(_ORIENTATIONS))
    for some, ordered in index.keys:
        key = np.broadcast_to(_join(codes, index.blocks, some), (len(_ORIENTATIONS), hashes.size // 8)).ravel()
        begins, ends = np.searchsorted(ordered, key), np.searchsorted(ordered, key + seconds)
        rows = np.flatnonzero(ends > begins)
        counts = (ends - begins)[rows]
        sums = counts.cumsum()
        cuts = np.searchsorted(sums, range(_COMPARISONS, sums[-1] if len(sums) else 0, _COMPARISONS))
        earlier = [mask for number, mask in enumerate(masks) if number not in some and number < max(some)]
        for chunk in np.split(np.arange(len(rows)), cuts):
            some_rows, lengths = rows[chunk], counts[chunk]
            places = np.arange(lengths.sum()) + (begins[some_rows] - lengths.cumsum() + lengths).repeat(lengths)
            firsts, those = ordered[places] & _LOWER, some_rows.repeat(lengths)
            differing = index.hashes[0, firsts] ^ hashes[those]
            bits = np.bitwise_count(differing)
            near = bits <= most_bits
            for mask in earlier:  # by which the pair was found before
                near &= (differing & mask) != 0
            pairs = firsts[near], seconds[those[near]], bits[near], orientations[those[near]]
            yield np.stack(pairs, dtype="int32", casting="same_kind")


def _correlate(thumbnails, pairs, part):
    """Correlate the images of each pair, the second one in its orientation, but for the lowest frequencies."""
    correlation, firsts = np.empty(len(pairs)), pairs["first"].to_numpy()
    seconds, orientations = pairs["second"].to_numpy() - part.start, pairs["orientation"].to_numpy()
    details = _take_detail(_transform(thumbnails[part]))
    for tile in np.unique(firsts // _TILE):  # so that the detail of few images is in memory at a time
        rows = np.flatnonzero(firsts // _TILE == tile)
        used, places = np.unique(firsts[rows], return_inverse=True)
        others = _take_detail(_transform(thumbnails[used]))
        for number in np.unique(orientations[rows]):
            alike = np.flatnonzero(orientations[rows] == number)
            for some in np.array_split(alike, len(alike) // _PAIRS + 1):
                oriented = _orient(details[seconds[rows[some]]], _ORIENTATIONS[number])
                correlation[rows[some]] = (others[places[some]] * oriented).sum(axis=(1, 2))
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
