"""Settings: what the environment variables mean, and what a wrong value is answered with."""

import io
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path
from types import SimpleNamespace

import IPython
import pytest

from helpers import settings as module
from helpers.files import InputError
from helpers.settings import PROJECT_FOLDER, Settings, read_settings

CHOICES = {
    "NOTEBOOK_MODE": ("quick", "full"),
    "DATA_SOURCE": ("auto", "local", "download", "sample"),
    "PRECISION": ("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    "NOTEBOOK_PROGRESS": ("auto", "on", "off"),
    "NOTEBOOK_LANGUAGE": ("en", "fr"),
}
ATTRIBUTES = {"NOTEBOOK_MODE": "mode", "DATA_SOURCE": "source", "PRECISION": "precision"}
ATTRIBUTES["NOTEBOOK_LANGUAGE"] = "language"


class Stream(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self.isatty = lambda: is_terminal


@pytest.fixture
def headless(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Stream(is_terminal=False))


@pytest.mark.usefixtures("headless")
def test_defaults():
    assert read_settings({}) == Settings(
        mode="quick",
        data_dir=PROJECT_FOLDER / "data",
        data_dir_given=False,
        source="auto",
        seed=42,
        precision="auto",
        cache_dir=PROJECT_FOLDER / ".cache",
        progress=False,
        data_set="",
        dask_scheduler="",
    )
    assert Path(__file__).parents[1] == PROJECT_FOLDER


@pytest.mark.usefixtures("headless")
def test_empty_variables_mean_the_defaults():
    names = [*CHOICES, "DATA_DIR", "CACHE_DIR", "SEED", "DATA_SET", "DASK_SCHEDULER"]
    assert read_settings(dict.fromkeys(names, "")) == read_settings({})


def test_settings_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        read_settings({}).seed = 1


@pytest.mark.parametrize(
    ("variable", "value"), [(name, value) for name in ATTRIBUTES for value in CHOICES[name]], ids="=".join
)
def test_every_choice_is_read(variable, value):
    assert getattr(read_settings({variable: value}), ATTRIBUTES[variable]) == value
    assert getattr(read_settings({variable: f" {value.upper()} "}), ATTRIBUTES[variable]) == value


def test_quick_is_the_quick_mode():
    assert read_settings({"NOTEBOOK_MODE": "quick"}).quick is True
    assert read_settings({"NOTEBOOK_MODE": "full"}).quick is False


@pytest.mark.parametrize("variable", CHOICES)
@pytest.mark.parametrize("value", ["fast", "0", "au to"])
def test_wrong_choice_names_variable_value_and_what_is_allowed(variable, value):
    with pytest.raises(InputError) as caught:
        read_settings({variable: value})
    message = str(caught.value)
    assert f"{variable}={value}" in message
    assert ", ".join(CHOICES[variable]) in message


@pytest.mark.parametrize(
    ("value", "seed"), [("0", 0), ("007", 7), (" 5 ", 5), ("4294967295", 2**32 - 1), ("0" * 20 + "1", 1)]
)
def test_seed(value, seed):
    assert read_settings({"SEED": value}).seed == seed


@pytest.mark.parametrize(
    "value", ["-1", "+1", "1.5", "1e3", "²", "٣", "abc", "1 2", "1_000", "0x10", "4294967296", "9" * 5000]
)
def test_wrong_seed_names_variable_value_and_what_is_allowed(value):
    with pytest.raises(InputError) as caught:
        read_settings({"SEED": value})
    message = str(caught.value)
    assert f"SEED={value}" in message
    assert "whole number from 0 to 4294967295" in message


@pytest.mark.parametrize(("variable", "attribute"), [("DATA_DIR", "data_dir"), ("CACHE_DIR", "cache_dir")])
def test_folders_do_not_depend_on_the_working_folder(variable, attribute, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def read(value):
        return getattr(read_settings({variable: value}), attribute)

    assert read("images/real") == PROJECT_FOLDER / "images" / "real"
    assert read("../elsewhere") == PROJECT_FOLDER.parent / "elsewhere"
    assert read(str(tmp_path / "a b")) == tmp_path / "a b"
    assert read("~/images") == tmp_path / "home" / "images"


def test_a_named_data_folder_is_told_from_the_default():
    assert read_settings({"DATA_DIR": "data"}).data_dir_given is True
    assert read_settings({"CACHE_DIR": "data"}).data_dir_given is False


@pytest.mark.parametrize(
    ("value", "name"), [("plants", "plants"), (" Melanoma-ISIC ", "melanoma-isic"), ("no-such-one", "no-such-one")]
)
def test_the_name_of_a_data_set_is_read_in_any_case(value, name):
    """Whether there is such a data set is for those to say who open it."""
    assert read_settings({"DATA_SET": value}).data_set == name
    assert read_settings({"DATA_SET": value}).dask_scheduler == ""


@pytest.mark.parametrize(
    "value", ["tcp://Host-1:8786", "tls://10.0.0.1:1", "tcp://[fe80::1]:65535", "tcp://a_b.example.org:8786"]
)
def test_the_address_of_a_cluster_is_read_as_it_is(value):
    settings = read_settings({"DASK_SCHEDULER": f" {value}\n"})
    assert settings.dask_scheduler == value
    assert settings.data_set == ""
    assert read_settings({"DASK_SCHEDULER": "  "}).dask_scheduler == ""


@pytest.mark.parametrize(
    "value",
    [
        *("host:8786", "host", "8786", "http://host:8787", "ucx://host:8786", "TCP://host:8786", "tcp://host"),
        *("tcp://:8786", "tcp://host:0", "tcp://host:65536", "tcp://host:٣", "tcp://host:8786/", "tcp://a b:8786"),
        *("tcp://me@host:8786", "tcp://host:8786,tcp://other:8786", "tcp://fe80::1:8786", "threads", "local"),
    ],
)
def test_what_is_no_address_of_a_cluster_is_told(value):
    with pytest.raises(InputError) as caught:
        read_settings({"DASK_SCHEDULER": value})
    assert str(caught.value).startswith(f"DASK_SCHEDULER={value.replace('me@', '***@')}: expected the address")
    assert "tcp://host:8786 or tls://host:8786" in str(caught.value)


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("watcher", ["JPY_SESSION_NAME", "VSCODE_PID", "ANYTHING_ELSE"])
@pytest.mark.parametrize("is_kernel", [True, False])
def test_progress_is_shown_when_somebody_watches(watcher, terminal, is_kernel, monkeypatch):
    """A command that was started in JupyterLab or VS Code, and writes to a file, is not watched."""
    monkeypatch.setattr(sys, "stderr", Stream(terminal))
    shell = SimpleNamespace(kernel=None) if is_kernel else SimpleNamespace()
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    watched = terminal or (is_kernel and watcher != "ANYTHING_ELSE")
    environment = {watcher: "notebooks/01_mnist.ipynb"}
    assert read_settings(environment).progress is watched
    assert read_settings(environment | {"NOTEBOOK_PROGRESS": "auto"}).progress is watched
    assert read_settings(environment | {"NOTEBOOK_PROGRESS": "on"}).progress is True
    assert read_settings(environment | {"NOTEBOOK_PROGRESS": "off"}).progress is False


def test_a_mode_that_is_given_takes_the_place_of_the_environments():
    assert read_settings({"NOTEBOOK_MODE": "full"}, mode="quick").mode == "quick"
    assert read_settings({}, mode="full").mode == "full"
    for wrong in ("", "fast", "FULL", 3):
        with pytest.raises(InputError, match=re.escape(f"mode={wrong!r}: expected one of quick, full.")):
            read_settings({}, mode=wrong)


def test_the_process_environment_is_read_by_default(monkeypatch):
    monkeypatch.setenv("NOTEBOOK_MODE", "full")
    monkeypatch.setenv("SEED", "11")
    settings = read_settings()
    assert (settings.mode, settings.seed) == ("full", 11)


def test_the_table_of_the_module_lists_every_variable_and_value():
    for name, values in CHOICES.items():
        assert f"\n{name} " in module.__doc__
        assert all(value in module.__doc__ for value in values)
    names = ("DATA_DIR", "SEED", "CACHE_DIR", "DATA_SET", "DASK_SCHEDULER")
    assert all(f"\n{name} " in module.__doc__ for name in names)


def test_input_error_is_shown_in_ipython_as_its_message_only(tmp_path):
    code = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("from helpers.settings import read_settings")
shell.run_cell("read_settings({'SEED': 'abc'})")
shell.run_cell("1 / 0")
"""
    environment = {"PYTHONPATH": str(PROJECT_FOLDER), "HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    plain = re.sub(r"\x1b\[[\d;]*m", "", run.stdout)
    shown, zero_division = plain.split("-" * 20, 1)  # the rule above an ordinary traceback
    assert shown.strip() == "InputError: SEED=abc: expected a whole number from 0 to 4294967295."
    assert "Traceback" in zero_division


@pytest.mark.parametrize(
    ("folders", "start", "expected"),
    [
        ([], ".", "."),
        (["data"], "data", "data"),
        (["notebooks", "helpers"], ".", "."),
        (["notebooks", "helpers"], "notebooks", "."),
        (["notebooks"], "notebooks", "notebooks"),
    ],
)
def test_an_installed_copy_works_where_it_is_started(tmp_path, folders, start, expected):
    """As after `pip install .`, beside packages that leave a folder ``notebooks`` there."""
    installed, work = tmp_path / "site-packages", tmp_path / "work"
    (installed / "helpers").mkdir(parents=True)
    (installed / "notebooks").mkdir()
    for name in ("__init__", "settings", "files"):
        (installed / "helpers" / f"{name}.py").write_bytes((PROJECT_FOLDER / "helpers" / f"{name}.py").read_bytes())
    for name in (".", *folders):
        (work / name).mkdir()
    code = f"import sys; sys.path.insert(0, {str(installed)!r}); from helpers.settings import *; "
    code += "found = read_settings({}); print(PROJECT_FOLDER, found.data_dir, found.cache_dir, sep='\\n')"
    given = {"cwd": work / start, "capture_output": True, "text": True, "check": True}
    done = subprocess.run([sys.executable, "-I", "-c", code], **given)
    project = (work / expected).resolve()
    assert done.stdout.splitlines() == [str(project), str(project / "data"), str(project / ".cache")]
