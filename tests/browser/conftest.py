"""A browser, and JupyterLab at work on a copy of the project, so that no test changes a file of it."""

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

PROJECT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LEFT_OUT = {".venv", ".git", ".cache", "data", "models", "reports", "figures/sample", "figures/quick"}
LEFT_OUT |= {".cache/checkpoints"}  # trainings that have not ended
OPTIONS = [
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def browser():
    """Start the system's Chromium."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert found, f"none of {', '.join(BROWSERS)} is on the PATH"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """Open an empty page; at the end, nothing may stand among the errors of its console."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, errors = context.new_page(), []
    page.on("console", lambda message: message.type == "error" and errors.append(f"{message.text} {message.location}"))
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """Copy the project, and its cache, but nothing else that a run has made."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(PROJECT, folder, ignore=leave_out, dirs_exist_ok=True)
    if (PROJECT / ".cache").is_dir():
        shutil.copytree(PROJECT / ".cache", folder / ".cache", ignore=leave_out, copy_function=link)
    return folder


def leave_out(folder, names):
    return [name for name in names if Path(folder, name).relative_to(PROJECT).as_posix() in LEFT_OUT]


def link(source, target):
    """Let a file have a second name: a cache can be large, and its files are replaced but never changed."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


@dataclass
class Lab:
    """JupyterLab that runs: its address, with the token, and the folder of its project."""

    address: str
    project: Path


@pytest.fixture(scope="session")
def lab(project, tmp_path_factory):
    """Start JupyterLab in the copy of the project, as a user of no settings of her own would, but without a browser."""
    home = tmp_path_factory.mktemp("jupyter")
    given = {name: text for name, text in os.environ.items() if name not in ("NOTEBOOK_PROGRESS", "DATA_DIR")}
    own = {name: str(home) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
    own |= {"PYTHONPATH": str(project), "DATA_SOURCE": "auto", "NOTEBOOK_MODE": "quick"}
    command = [sys.executable, "-m", "helpers.lab", "--no-browser"]
    path = home / "lab.log"
    with (
        open(path, "w") as log,
        subprocess.Popen(command, cwd=project, env=given | own, stdout=log, stderr=log) as server,
    ):
        try:
            deadline = time.monotonic() + 60
            while not (found := re.search(r"http://127\.0\.0\.1:\S+token=\w+", path.read_text())):
                assert server.poll() is None, path.read_text()
                assert time.monotonic() < deadline, path.read_text()
                time.sleep(0.1)
            yield Lab(found[0], project)
        finally:
            server.terminate()  # which ends the kernels too
