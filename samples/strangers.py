"""Strangers: pictures that no model here was made for. Blank ones, noise, and documents."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_LETTERS = list("abcdefghijklmnopqrstuvwxyz    ")


def draw_strangers(shape, count=100, seed=42):
    """Draw pictures that show nothing that a classifier knows.

    They are blank (black, white, grey or of one colour); noise (independent pixels, light and dark dots, or blurred
    patches); and documents (a page of text, a table, or a screen with windows).

    Parameters
    ----------
    shape : tuple of 3 ints
        Height, width and channels: 1 (grey) or 3 (colour).
    count : int
        How many of each kind.

    Returns
    -------
    dict of str to uint8 arrays (count, height, width, channels), with the keys "blank", "noise" and "document".
    """
    kinds = {
        "blank": (_draw_black, _draw_white, _draw_grey, _draw_colour),
        "noise": (_draw_pixels, _draw_dots, _draw_patches),
        "document": (_draw_page, _draw_table, _draw_screen),
    }
    rng, (height, width, channels) = np.random.default_rng(seed), shape
    drawn = {}
    for kind, ways in kinds.items():
        images = [ways[number % len(ways)](rng, (height, width)) for number in range(count)]
        images = [image.convert("L" if channels == 1 else "RGB").resize((width, height)) for image in images]
        drawn[kind] = np.stack(images).reshape(count, *shape)
    return drawn


def _draw_black(rng, size):
    return Image.new("RGB", size)


def _draw_white(rng, size):
    return Image.new("RGB", size, "white")


def _draw_grey(rng, size):
    return Image.new("RGB", size, (int(rng.integers(1, 255)),) * 3)


def _draw_colour(rng, size):
    return Image.new("RGB", size, _draw_levels(rng))


def _draw_pixels(rng, size):
    levels = rng.uniform(60, 200, 3) + rng.uniform(5, 100) * rng.normal(size=(*size, 3))
    return Image.fromarray(np.clip(levels, 0, 255).astype("uint8"))


def _draw_dots(rng, size):
    levels = np.full(size, rng.integers(256), "uint8")
    chance, share = rng.random(size), rng.uniform(0.05, 0.5)
    levels[chance < share] = 255
    levels[chance < share / 2] = 0
    return Image.fromarray(levels)


def _draw_patches(rng, size):
    few = rng.integers(2, 9)
    return Image.fromarray(rng.integers(0, 256, (few, few, 3), "uint8")).resize(size[::-1], Image.Resampling.BICUBIC)


def _draw_page(rng, size):
    dark, paper, ink = (20, 50), (225, 256), (0, 60)
    ground, letters = (paper, ink) if rng.random() < 0.8 else (dark, paper)
    page = Image.new("RGB", (620, 877), _draw_levels(rng, *ground))
    margin, height = int(rng.integers(20, 90)), int(rng.integers(10, 26))
    _write(page, rng, (margin, margin, 620 - margin, 877 - margin), height, _draw_levels(rng, *letters))
    return page


def _draw_table(rng, size):
    page = Image.new("RGB", (800, 600), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    rows, columns = int(rng.integers(5, 25)), int(rng.integers(3, 8))
    high, wide = 560 / rows, 760 / columns
    for row in range(rows):
        for column in range(columns):
            left, top = 20 + column * wide, 20 + row * high
            draw.rectangle((left, top, left + wide, top + high), outline="black")
            draw.text((left + 4, top + 2), f"{rng.normal(0, 100):.2f}", "black", font)
    return page


def _draw_screen(rng, size):
    screen = Image.new("RGB", (1280, 800), _draw_levels(rng))
    draw = ImageDraw.Draw(screen)
    for _ in range(rng.integers(2, 6)):
        left, top = (int(rng.integers(0, most)) for most in (700, 400))
        right, bottom = left + int(rng.integers(300, 600)), top + int(rng.integers(200, 400))
        light = rng.random() < 0.6
        draw.rectangle((left, top, right, bottom), _draw_levels(rng, *((230, 256) if light else (20, 60))))
        draw.rectangle((left, top, right, top + 24), _draw_levels(rng))
        _write(screen, rng, (left + 8, top + 30, right - 8, bottom - 16), 14, "black" if light else "white")
    return screen


def _write(page, rng, box, height, colour):
    """Fill a box (left, top, right, bottom) with lines of random letters."""
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(height)
    left, top, right, bottom = box
    for line in range(top, bottom - height, int(1.4 * height)):
        letters = int((right - left) / (0.55 * height) * rng.choice([1, 1, 1, 0.6]))
        draw.text((left, line), "".join(rng.choice(_LETTERS, letters)), colour, font)


def _draw_levels(rng, low=0, high=256):
    return tuple(int(level) for level in rng.integers(low, high, 3))
