"""The pinned requirements fit the ranges in pyproject.toml."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[1]


def read_pins():
    lines = (PROJECT / "requirements.txt").read_text().splitlines()
    return {match[1]: match[2] for line in lines if (match := re.match(r"([\w.-]+)==([^ ;]+)", line))}


def read_ranges():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = [text for group in project["optional-dependencies"].values() for text in group]
    return [Requirement(text) for text in project["dependencies"] + extras]


def test_every_dependency_is_pinned_within_its_range():
    pins = read_pins()
    for requirement in read_ranges():
        assert requirement.specifier.contains(pins[requirement.name]), requirement


def test_installed_versions_are_the_pinned_ones():
    pins = read_pins()
    for requirement in read_ranges():
        assert version(requirement.name) == pins[requirement.name]


def test_helpers_are_installed_with_the_requirements():
    assert "-e ." in (PROJECT / "requirements.txt").read_text().splitlines()
    assert "://" not in (PROJECT / "requirements.txt").read_text()
