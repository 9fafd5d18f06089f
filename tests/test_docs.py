"""The pages name what the code knows; their links are checked by test_links.py."""

import re
from pathlib import Path

from helpers import settings

PROJECT = Path(__file__).parents[1]


def read(path):
    """Read a page without blocks of code."""
    return re.sub(r"(?ms)^```.*?^```", "", path.read_text(encoding="utf-8"))


def test_the_readme_is_short_and_its_picture_comes_first():
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= 130
    assert text.index("![") < 600  # a title and two sentences above it
    assert {f"docs/{path.name}" for path in PROJECT.glob("docs/*.md")} <= set(re.findall(r"\]\((.*?)\)", text))


def test_the_settings_are_those_of_the_code():
    known = re.findall(r"(?m)^([A-Z]+_?[A-Z]+) ", settings.__doc__)
    assert len(known) >= 9
    assert sorted(re.findall(r"(?m)^\| `([A-Z_]+)` ", read(PROJECT / "docs" / "settings.md"))) == sorted(known)


def test_the_commands_are_those_of_the_makefile():
    targets = re.findall(r"(?m)^([a-z]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"))
    assert set(re.findall(r"`make ([a-z]+)", read(PROJECT / "docs" / "settings.md"))) == set(targets)


def test_the_pretrained_networks_are_those_of_the_code():
    from helpers.training.transfer import BASES  # here only: it brings TensorFlow

    rows = re.findall(r"(?m)^\| `([a-z0-9_.]+)` \| .*? \| (.*?) \|$", read(PROJECT / "docs" / "settings.md"))
    files = {name: re.findall(r"`([^`]+\.h5)`", file)[:1] for name, file in rows}
    assert files == {name: [base.weights_file] if base.weights_file else [] for name, base in BASES.items()}
    assert BASES["resnet18"].preset in dict(rows)["resnet18"]
