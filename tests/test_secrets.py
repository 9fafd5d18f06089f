"""What is planted in the environment and in the home folder is found nowhere in what is written and printed."""

import base64
import doctest
import gzip
import io
import json
import logging
import os
import zipfile
import zlib
from pathlib import Path

import kagglehub
import numpy as np
import pandas as pd
import pytest
import requests
from PIL import Image, PngImagePlugin
from searching import search_folders, unpack

from helpers import predict, redaction, reports, run
from helpers.data.catalog import DataSet, get_data_set
from helpers.data.opening import find_data
from helpers.files import InputError
from helpers.redaction import hide_keys, hide_secrets
from helpers.settings import read_settings
from helpers.study import runner

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
SHAPE = (16, 16, 3)
RECORD = DataSet(
    name="pebbles",
    title="Pebbles",
    task="Is it dark or light?",
    class_names=("dark", "light"),
    class_labels={"dark": "dark", "light": "light"},
    layout="class_folders",
    key_file="train",
    files="images in train/ and test/",
    handle="kaggle:nobody/pebbles/versions/1",
    expected_counts={"train": 80, "test": 40},
    group_rule="pebbles",
    image_shape=SHAPE,
    allowed_augmentation="flips",
    citation="Found (2026)",
    licence="CC0",
)
VARIABLES = {
    name: f"planted0{number:02}q7x" + "z" * number
    for number, name in enumerate(
        ["KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "AWS_SECRET_ACCESS_KEY", "ANY_OTHER_VARIABLE"]
    )
}
PROXY, FILED = ("planted0proxyuser", "planted0proxyword"), ("planted0fileuser", "planted0filekey", "planted0filetoken")
PLANTED = [*VARIABLES.values(), *PROXY, *FILED, "planted0home", "planted0hub"]


@pytest.fixture(scope="module", autouse=True)
def planted(tmp_path_factory):
    """Plant a value of its own in each variable, in Kaggle's files, and in the name of the home folder."""
    home = tmp_path_factory.mktemp("homes") / "planted0home"
    (home / ".kaggle").mkdir(parents=True)
    (home / ".kaggle" / "kaggle.json").write_text(json.dumps({"username": FILED[0], "key": FILED[1]}))
    (home / ".kaggle" / "access_token").write_text(f"{FILED[2]}\n")
    (home / ".cache" / "kagglehub").mkdir(parents=True)
    (home / ".cache" / "kagglehub" / "token").write_text("planted0hub")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in VARIABLES.items():
            patch.setenv(name, value)
        patch.setenv("HTTPS_PROXY", f"http://{':'.join(PROXY)}@127.0.0.1:9")
        patch.setenv("HOME", str(home))
        yield home


# What is searched, is found


def test_the_search_finds_what_is_packed(tmp_path):
    word = b"planted0word"
    info, picture = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_text("Comment", word.decode(), zip=True)
    Image.new("L", (8, 8)).save(picture, "PNG", pnginfo=info)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("inside.gz", gzip.compress(b"." * 100 + word))
    pdf = b"%PDF-1.4\nstream\n" + zlib.compress(word * 2) + b"\nendstream"
    encoded = json.dumps({"image/png": base64.encodebytes(picture.getvalue()).decode()}).encode()
    for content in (word, picture.getvalue(), archive.getvalue(), pdf, encoded):
        assert any(word in part for part in unpack(content))
    assert not any(word in part for part in unpack(content.replace(b"A", b"B")))
    (tmp_path / "planted0word.bin").touch()
    assert search_folders(["planted0word"], tmp_path) == [f"planted0word in {tmp_path / 'planted0word.bin'}"]


# Redaction


def test_secrets_of_messages_are_hidden():
    proxy = os.environ["HTTPS_PROXY"]
    text = (
        f"403 for url: https://host/archive.zip?X-Goog-Signature=0123456789abcdef, proxy {proxy}, "
        f"header 'Bearer\\t{VARIABLES['KAGGLE_API_TOKEN']}', Basic dXNlcjp3b3Jk, {FILED}, {[*VARIABLES.values()][:4]}"
    )
    assert hide_secrets(text) == (
        "403 for url: https://host/archive.zip?***, proxy http://***@127.0.0.1:9, header 'Bearer\\t***', Basic ***, "
        "('***', '***', '***'), ['***', '***', '***', '***']"
    )
    assert doctest.testmod(redaction).failed == 0
    plain = f"no such file: /home/{VARIABLES['KAGGLE_USERNAME']}/data (https://host/page?): what is the key?"
    assert hide_secrets(plain) == plain


def test_any_text_keeps_all_but_keys(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "short")
    monkeypatch.setenv("SOME_PASSWORD", 'a"quoted" word')
    text = f"short https://host/page?raw=true {VARIABLES['KAGGLE_USERNAME']} {VARIABLES['KAGGLE_KEY']} "
    hidden = f"short https://host/page?raw=true {VARIABLES['KAGGLE_USERNAME']} *** "
    assert hide_keys(text + json.dumps('a"quoted" word')) == f'{hidden}"***"'


def test_a_token_in_a_named_file_is_hidden(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("planted0named\n")
    monkeypatch.setenv("KAGGLE_API_TOKEN", str(tmp_path / "token"))
    assert hide_keys("it is planted0named") == "it is ***"


@pytest.mark.parametrize("home", ["missing", "refused", "list"])
def test_a_message_is_shown_also_where_the_home_folder_cannot_be_read(tmp_path, monkeypatch, home):
    def refuse(*_, **__):
        raise RuntimeError("Could not determine home directory.") if home == "missing" else PermissionError(13, "no")

    (tmp_path / "any.json").write_text("[]")
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    if home != "list":
        monkeypatch.setattr(Path, "expanduser" if home == "missing" else "glob", refuse)
    assert hide_keys("shown") == "shown"


def test_user_names_of_a_scheduler_are_not_repeated():
    with pytest.raises(InputError, match=r"DASK_SCHEDULER=tcp://\*\*\*@host:8786: expected"):
        read_settings({"DASK_SCHEDULER": "tcp://planted0user:planted0word@host:8786"})


# Downloads


@pytest.mark.parametrize("chained", [False, True])
def test_a_failed_download_tells_no_secret(tmp_path, monkeypatch, chained):
    def fail(*_):
        header = f"Invalid leading whitespace in header value: 'Bearer  {VARIABLES['KAGGLE_API_TOKEN']}'"
        told = (
            f"{header}, {os.environ['HTTPS_PROXY']}, {VARIABLES['KAGGLE_USERNAME']}:{VARIABLES['KAGGLE_KEY']}, {FILED}"
        )
        try:
            raise requests.exceptions.InvalidHeader(told)
        except requests.exceptions.InvalidHeader:
            if chained:
                raise ValueError(told) from None
            raise

    monkeypatch.setattr(kagglehub, "dataset_download", fail)
    monkeypatch.setattr(kagglehub, "model_download", fail)
    from helpers.training import transfer  # here only, as below: it starts TensorFlow

    (tmp_path / "data").mkdir()
    settings = read_settings({"DATA_SOURCE": "download", "DATA_DIR": str(tmp_path / "data")})
    with pytest.raises(InputError) as caught:
        find_data(get_data_set("ham10000"), settings)
    shown = "".join(logging.Formatter().formatException((caught.type, caught.value, caught.tb)))
    _, note = transfer.find_weights(tmp_path, "resnet18")
    for text in (shown, note):
        assert "Invalid leading whitespace" in text
        assert [value for value in PLANTED if value in text] == []


# Everything that is written


@pytest.fixture(scope="module")
def written(draw_experiment, tmp_path_factory):
    """Run a small experiment with all that it writes; the folders that it wrote to."""
    from helpers.training.fit import Recipe  # isort: skip  (first: it starts TensorFlow without its log lines)
    import keras

    from helpers.evaluation import plots

    rng = np.random.default_rng(0)

    def draw(label):
        level = {"dark": 100, "light": 150}[label]
        return np.clip(level + rng.normal(0, 20) + rng.normal(0, 40, SHAPE), 0, 255).astype("uint8")

    def build():
        inputs = keras.Input(SHAPE)
        pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
        return keras.Model(inputs, keras.layers.Dense(2, activation="softmax", dtype="float32")(pooled))

    experiment = draw_experiment("09_pebbles", RECORD, draw, {"train": 40, "test": 20}, validation=0.25)
    x = experiment.data.load_pixels(SHAPE)
    experiment.fit("small", build, x, Recipe(epochs=1, batch_size=16))
    experiment.calibrate()
    experiment.choose("accuracy")
    experiment.score("test", resamples=20)
    experiment.show(
        plots.plot_confusion_matrix(experiment.calibrated("small"), experiment.data.class_names),
        "confusion",
        "It is right.",
    )
    checkpoints = [path.read_bytes() for path in experiment.settings.cache_dir.rglob("*.npz")]
    assert checkpoints  # before they are removed, see `save`
    folder = tmp_path_factory.mktemp("written")
    for number, content in enumerate(checkpoints):
        (folder / f"{number}.npz").write_bytes(content)
    model = experiment.save_model("small")
    experiment.save("by pebble")
    trials = pd.DataFrame({"settings": [{"x": 0}, {"x": 1}], "seed": 5})
    results = runner.run_study(_fail, trials, folder / "study", n_jobs=1)
    assert results["error"].str.startswith("RuntimeError: no such key").all()
    out = folder / "predictions.csv"
    assert predict.main([str(model), str(experiment.settings.data_dir), "--out", str(out)]) == 0
    return [folder, experiment.folder, experiment.settings.cache_dir]


def _fail(settings, seed):
    secret = os.environ["KAGGLE_KEY"]
    raise RuntimeError(f"no such key: {secret}, user {FILED[0]}")


def test_nothing_planted_is_written(written):
    names = {path.name for folder in written for path in folder.rglob("*")}
    suffixes = {Path(name).suffix for name in names}
    assert {"results.json", "small.keras", "small.md", "0.npz", "predictions.csv", "confusion.pdf"} <= names
    assert {".png", ".svg", ".npy", ".csv", ".json"} <= suffixes
    assert search_folders(PLANTED, *written) == []


def test_nothing_planted_is_in_a_report(tmp_path, monkeypatch, capfd):
    """Not even where a cell prints all of the environment that is a key, or fails because of it."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    for constant in ("NOTEBOOKS_FOLDER", "REPORTS_FOLDER", "FIGURES_FOLDER"):
        (tmp_path / constant).mkdir()
        monkeypatch.setattr(reports, constant, tmp_path / constant)
    for module in (run, reports):
        monkeypatch.setattr(module, "PROJECT_FOLDER", tmp_path)
    cells = [
        "import os, sys; keys = [os.environ[name] for name in ('KAGGLE_KEY', 'AWS_SECRET_ACCESS_KEY')]; print(keys)",
        "from IPython.display import HTML; print(*keys, file=sys.stderr); HTML(keys[0])",
        "raise ValueError(keys)",
    ]
    path = tmp_path / "NOTEBOOKS_FOLDER" / "1_telling.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), path)
    assert run.main([]) == 1
    printed = "".join(capfd.readouterr())
    assert "ValueError: ['***', '***']" in printed
    executed = nbformat.read(tmp_path / "REPORTS_FOLDER" / path.name, as_version=4)
    assert executed.cells[0].outputs[0].text == "['***', '***']\n"
    assert [value for value in PLANTED if value in printed] == []
    assert search_folders(PLANTED, tmp_path) == []
