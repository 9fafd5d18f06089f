"""The pages and notebooks link to what there is, and name what the code knows."""

import json
import re
from pathlib import Path

import pytest

from helpers import settings

PROJECT = Path(__file__).parents[1]
PAGES = [
    *PROJECT.glob("*.md"),
    *PROJECT.glob("docs/*.md"),
    *PROJECT.glob("figures/*.md"),
    PROJECT / "notebooks/glossary.md",
]
NOTEBOOKS = sorted(PROJECT.glob("notebooks/*.ipynb"))


def read(path):
    """Read a page, or the text cells of a notebook, without blocks of code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"(?ms)^```.*?^```", "", text)


def list_anchors(path):
    """List the headings of a page as GitHub names them in links."""
    headings = re.findall(r"(?m)^#+ +(.*\S)", read(path))
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    broken = []
    for link in re.findall(r"\]\((?!https?://)([^)\s]+)\)", read(path)):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in list_anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_glossary_lists_its_terms_and_has_an_example_in_numbers_for_each():
    path = PROJECT / "notebooks" / "glossary.md"
    introduction, *entries = read(path).split("\n## ")
    assert sorted(re.findall(r"\]\(#(.*?)\)", introduction)) == sorted(list_anchors(path)[1:])
    assert len(entries) >= 24
    assert [entry for entry in entries if not re.search(r"\d", entry.partition("\n")[2])] == []


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
