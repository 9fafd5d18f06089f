"""Cells: images of single cells, cut out on black. Where the cell is, its size, shape and colour, and a crop to it."""

import numpy as np
import pandas as pd
from scipy import ndimage

from helpers.files import release_pages

BACKGROUND_LEVEL = 8  # pixels are background where no channel, 0 to 255, is above it, in augmentation and networks too


def find_cells(pixels, threshold=BACKGROUND_LEVEL):
    """Find the cell in each image: a bool array (n, height, width), all False for a black image.

    The cell is the largest connected part (pixels that share a side) that is not black, its holes filled.

    Parameters
    ----------
    pixels : uint8 array (n, height, width, channels)
        May be memory-mapped. Other than four dimensions raise ValueError.
    threshold : int
        A pixel belongs to a cell if one of its channels, 0 to 255, is above it.
    """
    if pixels.ndim != 4:
        raise ValueError(f"Expected images (n, height, width, channels), got shape {pixels.shape}.")
    masks = np.zeros(pixels.shape[:3], bool)
    for mask, image in zip(masks, pixels, strict=True):
        mask[:] = _find_cell(image, threshold)
    release_pages(pixels)
    return masks


def measure_cells(pixels, masks=None):
    """Measure size, shape and colour of the cell in each image.

    Parameters
    ----------
    pixels : uint8 array (n, height, width, 3)
        May be memory-mapped.
    masks : bool array (n, height, width), optional
        The cells; from `find_cells` by default. Other shapes raise ValueError.

    Returns
    -------
    DataFrame with one row per image: ``area`` in pixels; ``diameter`` in pixels, of the circle of that area;
    ``roundness``, 4 pi area / perimeter², at most 1, the value of a circle; ``red, green, blue``, the mean level of the
    cell from 0 to 255, and ``red_std, green_std, blue_std``, its standard deviation. An image without a cell has area
    and diameter 0 and no other values. The perimeter is the one of Crofton's formula with four directions (Legland,
    Kiêu and Devaux 2007), right on average for a circle and up to 5 % short for a square; an edge of the image that
    cuts a cell counts.
    """
    if pixels.ndim != 4 or pixels.shape[-1] != 3:
        raise ValueError(f"Expected images (n, height, width, 3), got shape {pixels.shape}.")
    if masks is None:
        masks = map(_find_cell, pixels)
    elif masks.shape != pixels.shape[:3]:
        raise ValueError(f"Masks of shape {masks.shape} do not belong to images of shape {pixels.shape}.")
    rows = [_measure_cell(np.asarray(image), mask) for image, mask in zip(pixels, masks, strict=True)]
    release_pages(pixels)
    names = ["area", "diameter", "roundness", "red", "green", "blue", "red_std", "green_std", "blue_std"]
    return pd.DataFrame(rows, columns=names).astype({"area": int})


def crop_to_center(pixels, size):
    """Cut out the middle of images or masks (n, height, width, ...), as a view of them.

    ``size`` is height and width of the crop in pixels, or one number for a square. Of an odd rest, the larger half is
    cut off below and at the right. A crop that is empty or larger than the images raises ValueError.
    """
    height, width = (size, size) if np.isscalar(size) else size
    high, wide = pixels.shape[1:3]
    if not (0 < height <= high and 0 < width <= wide):
        raise ValueError(f"No crop of {height} × {width} pixels can be cut from images of {high} × {wide}.")
    top, left = (high - height) // 2, (wide - width) // 2
    return pixels[:, top : top + height, left : left + width]


def find_crop(masks, share=0.995, multiple=8):
    """Find the side of the smallest square in the middle of the images that holds nearly all of the cells.

    Give it training images only, as for all that a network depends on. Raise ValueError if there is no cell, the share
    is out of range, or no such square holds enough.

    Parameters
    ----------
    masks : bool array (n, height, width)
        From `find_cells`. Masks without a cell are left out.
    share : float
        The part of a cell's pixels that is to lie inside, on average over the cells, above 0 and up to 1.
    multiple : int
        The side in pixels, the size for `crop_to_center`, is a multiple of it.
    """
    if not 0 < share <= 1:
        raise ValueError(f"Expected a share above 0 and up to 1, got {share}.")
    cells = [mask for mask in masks if mask.any()]
    if not cells:
        raise ValueError("There is no cell in any mask.")
    occupied = sum(mask / mask.sum() for mask in cells)[None] / len(cells)
    (high, wide), held = masks.shape[1:3], 0.0
    for side in range(multiple, min(high, wide) + 1, multiple):
        held = float(crop_to_center(occupied, side).sum())
        if held >= share - 1e-9:
            return side
    raise ValueError(
        f"No square with a side of a multiple of {multiple} in images of {high} × {wide} pixels holds {share:.1%} of "
        f"the cells; the largest holds {held:.1%}."
    )


def _find_cell(image, threshold=BACKGROUND_LEVEL):
    bright = np.pad(np.asarray(image).max(axis=-1) > threshold, 1)
    if not bright.any():
        return bright[1:-1, 1:-1]
    outside = ndimage.label(~bright)[0] == 1  # the padding, and all dark pixels that are connected with it
    parts = ndimage.label(~outside)[0][1:-1, 1:-1]
    return parts == np.bincount(parts.ravel())[1:].argmax() + 1


def _measure_cell(image, mask):
    area = int(mask.sum())
    if not area:
        return [0, 0.0, *[np.nan] * 7]
    cell, mask = image[mask].astype("float64"), np.pad(mask, 1)
    # How often lines in four directions cross the edge of the mask.
    straight = (mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum()
    diagonal = (mask[1:, 1:] != mask[:-1, :-1]).sum() + (mask[1:, :-1] != mask[:-1, 1:]).sum()
    perimeter = np.pi / 8 * (straight + diagonal / np.sqrt(2))
    roundness = min(1.0, 4 * np.pi * area / perimeter**2)
    return [area, 2 * np.sqrt(area / np.pi), roundness, *cell.mean(axis=0), *cell.std(axis=0)]
