"""Data sets from Kaggle: kagglehub fetches them, local files come first, and a failure says what to do."""

from pathlib import Path

import kagglehub
import pytest

from helpers.data.catalog import get_data_set
from helpers.data.opening import find_data
from helpers.files import InputError
from helpers.settings import read_settings

NAME = "HAM10000_metadata.csv"


@pytest.fixture
def data_set():
    return get_data_set("ham10000")


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "other").mkdir()
    return read_settings(
        {"DATA_SOURCE": "download", "DATA_DIR": str(tmp_path / "data"), "CACHE_DIR": str(tmp_path / "cache")}
    )


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """Stand in for Kaggle, which needs a network: a folder that holds the key file, and the names asked for."""
    folder = tmp_path / "kagglehub" / "versions" / "2"
    folder.mkdir(parents=True)
    (folder / NAME).touch()
    asked = []

    def download(name):
        asked.append(name)
        return str(folder)  # as kagglehub does

    monkeypatch.setattr(kagglehub, "dataset_download", download)
    return folder, asked


def test_the_pinned_version_is_asked_for_and_stays_where_kagglehub_keeps_it(data_set, settings, kaggle):
    folder, asked = kaggle
    found = find_data(data_set, settings)
    assert asked == ["kmader/skin-cancer-mnist-ham10000/versions/2"]
    assert (found.kind, found.folder, found.is_sample) == ("download", folder, False)
    assert isinstance(found.folder, Path)
    assert found.note == "HAM10000 skin lesions, from kaggle:kmader/skin-cancer-mnist-ham10000/versions/2."
    assert [path.name for path in settings.data_dir.iterdir()] == ["other"]


def test_local_files_are_preferred_to_a_download(data_set, settings, kaggle):
    (settings.data_dir / "ham10000").mkdir()
    (settings.data_dir / "ham10000" / NAME).touch()
    found = find_data(data_set, settings)
    assert (found.kind, found.folder) == ("download", settings.data_dir / "ham10000")
    assert found.note == "HAM10000 skin lesions, from data/ham10000."
    assert kaggle[1] == []


def assert_failed(data_set, settings, reason):
    with pytest.raises(InputError) as caught:
        find_data(data_set, settings)
    message = str(caught.value)
    assert message.startswith("HAM10000 skin lesions could not be downloaded")
    assert "(kaggle:kmader/skin-cancer-mnist-ham10000/versions/2)" in message
    assert reason in message
    assert f"Put its files under {settings.data_dir / 'ham10000'} by hand ({data_set.files})" in message
    assert "DATA_SOURCE=sample" in message


@pytest.mark.parametrize("error", [ConnectionError, PermissionError, ValueError, OSError, RuntimeError, KeyError])
def test_failed_download_says_what_to_do(data_set, settings, monkeypatch, error):
    def fail(name):
        raise error("reason of it")

    monkeypatch.setattr(kagglehub, "dataset_download", fail)
    assert_failed(data_set, settings, "reason of it")
    assert [path.name for path in settings.data_dir.iterdir()] == ["other"]


def test_a_download_without_the_key_file_is_refused(data_set, settings, kaggle):
    (kaggle[0] / NAME).rename(kaggle[0] / "metadata.csv")
    assert_failed(data_set, settings, f"what came has no {NAME}")


def test_a_failed_download_touches_no_files_of_ours(data_set, settings, kaggle):
    (kaggle[0] / NAME).unlink()
    mine = settings.data_dir / "ham10000" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert_failed(data_set, settings, "what came has no")
    assert mine.read_text() == "mine"


def test_an_interrupted_download_is_no_failure_to_explain(data_set, settings, monkeypatch):
    def interrupt(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(kagglehub, "dataset_download", interrupt)
    with pytest.raises(KeyboardInterrupt):
        find_data(data_set, settings)
