"""Damaged caches: each is noticed, named and made again, and the result is that of an undisturbed run."""

import io
import shutil
import tempfile
import zipfile
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.torture import Case
from helpers import seals
from helpers.data import pixels, reading
from helpers.study import design, runner

_EXPECTED = "noticed, named, made again; the same result"
_COUNT, _SHORT_COUNT = 2000, 60  # images
_SIZE, _PAGE = 32, 4096


def run(short=False):
    """Damage caches of all kinds: a `Case` for each."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        images = _draw(folder / "images", _SHORT_COUNT if short else _COUNT)
        return [*_try_images(images, folder), *_try_training(folder), *_try_study(folder)]


def _draw(folder, count):
    folder.mkdir()
    levels = np.random.default_rng(0).integers(0, 256, (count, _SIZE, _SIZE, 3), "uint8")
    names = [f"{number:05d}.png" for number in range(count)]
    for name, image in zip(names, levels, strict=True):
        Image.fromarray(image).save(folder / name)
    return pd.DataFrame({"image_id": names, "path": names})


# Ways to damage a file, given its content


def _flip(content, place=None):
    """Flip a bit in the middle, or at another place."""
    content = bytearray(content)
    content[len(content) // 2 if place is None else place] ^= 1
    return bytes(content)


def _flip_weight(content):
    """Flip a bit of the first weights in a checkpoint, behind the heads of the member and of the array."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        member = archive.getinfo("model_0.npy")
    return _flip(content, member.header_offset + 300)


def _cut(content):
    return content[: len(content) * 2 // 3]


def _clear_page(content):
    start = len(content) // 2 // _PAGE * _PAGE
    return content[:start] + bytes(_PAGE) + content[start + _PAGE :]


def _swap_header(content):
    """Claim that the pixels, which are as many as before, have another shape."""
    before = f"{_SIZE}, {_SIZE}, 3), ".encode()
    assert before in content
    return content.replace(before, f"{_SIZE // 2}, {2 * _SIZE}, 3),".encode(), 1)


def _append(content):
    return content + bytes(_PAGE)


def _flip_digit(content, after):
    """Make another digit of the first one behind a text."""
    place = content.index(after) + len(after)
    place += next(number for number, sign in enumerate(content[place:]) if chr(sign).isdigit())
    return _flip(content, place)


def _try(name, cached, damage, repeat, is_same, expected=_EXPECTED):
    """Damage a cached file and do again what reads it."""
    before = cached.read_bytes()
    cached.write_bytes(damaged := damage(before))
    assert damaged != before
    with redirect_stdout(io.StringIO()) as said:
        try:
            result = "the same result" if is_same(repeat()) else "another result"
        except Exception as error:
            result = type(error).__name__
    named = said.getvalue().count(f"{cached} was damaged (") == 1
    again = cached.is_file() and cached.read_bytes() != damaged
    happened = f"{'' if named else 'not '}named, {'' if again else 'not '}made again; {result}"
    return Case(name, expected, happened, named and again and result == "the same result")


def _try_images(images, folder):
    """Damage pixels, measures and hashes."""
    place, cache = folder / "images", folder / "cache"
    load = (images, place, (_SIZE, _SIZE, 3), cache)

    def read_again(read):
        """Read as a new process does."""
        with patch.dict(seals._checked, clear=True), patch.dict(reading._hashes, clear=True):
            return read()

    def measure():
        return pixels.measure_images(images, place, cache)

    def compute_fingerprint():
        return pixels.compute_fingerprint(images, place, cache)

    with patch.object(reading, "_RECENT", 0):  # hashes of files that were written just now are kept too
        whole, measured, fingerprint = np.array(pixels.load_pixels(*load)), measure(), compute_fingerprint()
        (of_pixels,), (of_measures,), (of_hashes,) = (
            list((cache / kind).iterdir()) for kind in ("pixels", "measured", "hashes")
        )
        for name, damage in {
            "pixels: a flipped bit": _flip,
            "pixels: zeros over a page": _clear_page,
            "pixels: the header of another shape": _swap_header,
            "pixels: cut": _cut,
            "pixels: appended bytes": _append,
        }.items():
            yield _try(name, of_pixels, damage, lambda: read_again(lambda: pixels.load_pixels(*load)),
                       lambda found: np.array_equal(found, whole))  # fmt: skip
        for name, damage in {
            "measures: a flipped digit": lambda content: _flip_digit(content, b"RGB,"),
            "measures: cut": _cut,
        }.items():
            yield _try(name, of_measures, damage, lambda: read_again(measure), measured.equals)
        for name, damage in {
            "hashes: a flipped digit": lambda content: _flip_digit(content, b'.png": "'),
            "hashes: cut": _cut,
        }.items():
            yield _try(name, of_hashes, damage, lambda: read_again(compute_fingerprint), fingerprint.__eq__)


def _try_training(folder):
    """Damage the checkpoint of a training after its first of two epochs."""
    from helpers.training import fit  # isort: skip  (here only: it starts TensorFlow)
    import keras

    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (64, 8, 8, 1), "uint8"), np.eye(2, dtype="float32")[rng.integers(0, 2, 64)]
    checkpoint, kept = folder / "checkpoint.npz", folder / "after_one_epoch.npz"

    def train():
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Flatten(name="flat"), keras.layers.Dense(2, activation="softmax", name="classes")]
        model = keras.Sequential([keras.layers.Input((8, 8, 1)), *layers], name="network")
        history = fit.fit_model(model, (x, y), (x, y), fit.Recipe(epochs=2, batch_size=16), checkpoint=checkpoint)
        return [*model.get_weights(), history[["loss", "accuracy", "val_loss", "val_accuracy"]].to_numpy()]

    def is_same(found):
        return all(np.array_equal(one, other) for one, other in zip(found, undisturbed, strict=True))

    save = fit._Recorder._save

    def save_and_keep(recorder, **lists):
        save(recorder, **lists)
        if not kept.exists():
            shutil.copy(checkpoint, kept)

    with patch.object(fit._Recorder, "_save", save_and_keep):
        undisturbed = train()
    for name, damage in {"checkpoint: a flipped bit": _flip_weight, "checkpoint: cut": _cut}.items():
        shutil.copy(kept, checkpoint)
        yield _try(name, checkpoint, damage, train, is_same, "noticed, named, begun anew; the same weights and history")


def _train(settings, seed):
    """Stand for a training in a study."""
    return {"accuracy": settings["depth"] / 8 + seed / 1000}


def _try_study(folder):
    """Damage the record of a trial."""
    trials = design.list_trials({"depth": 1}, {"depth": {"2": {"depth": 2}, "3": {"depth": 3}}}, [5])

    def study():
        return runner.run_study(_train, trials, folder / "study", n_jobs=1).drop(columns="wall_seconds")

    first = study()
    record = folder / "study" / f"{first['trial'][1]}.json"
    yield _try("study: a flipped digit in a result", record, lambda content: _flip_digit(content, b'"accuracy": 0.'),
               study, first.equals)  # fmt: skip
