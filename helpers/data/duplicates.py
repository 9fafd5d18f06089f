"""Near-duplicates: images that show the same picture, whichever way up, found by perceptual hashing."""

from itertools import product

import numpy as np
import pandas as pd
from scipy.fft import dctn

_SIDE = 8  # of the block of low frequencies that makes the hash
_LOWEST = 4  # frequencies below this sum of both directions are left out of the comparison
_CHUNK = 2**25  # comparisons at a time
_ORIENTATIONS = list(product((0, 1), repeat=3))  # turned, upside down, mirrored


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
    for start in range(0, hashes.shape[1], step):
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
