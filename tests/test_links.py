"""Every link of the pages and notebooks leads somewhere. Without network: addresses of the web are only read.

``python tests/test_links.py`` lists these addresses, one a line, for who wants to try them.
"""

import json
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

PROJECT = Path(__file__).parents[1]
GLOSSARY = PROJECT / "notebooks" / "glossary.md"
NOTEBOOKS = sorted(PROJECT.glob("notebooks/0[1-6]_*.ipynb"))
PAGES = [
    path
    for pattern in ("*.md", "docs/*.md", "notebooks/*.md", "figures/*.md", "figures/[0-9]*/*.md", ".github/**/*.md")
    for path in sorted(PROJECT.glob(pattern))
] + sorted(PROJECT.glob("notebooks/*.ipynb"))
PLACEHOLDER = "OWNER/REPOSITORY"


def read(path):
    """Read a page, or the text cells of a notebook, without code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"(?ms)^ *```.*?^ *```|<!--.*?-->", "", text)


def list_links(text):
    """List the targets of links and pictures in Markdown and HTML; a target may hold parentheses in pairs."""
    text = re.sub(r"`[^`\n]+`", "", text)
    found = re.findall(r"""\]\(\s*<?((?:[^\s()<>]|\([^\s()]*\))+)>?(?:\s+["'][^)]*)?\)""", text)
    found += re.findall(r"(?m)^ {0,3}\[[^\]^]+\]:\s+<?([^\s>]+)", text)
    found += re.findall(r"""(?i)(?:href|src)=["']([^"']+)["']""", text)
    return found + re.findall(r"<(https?://[^>\s]+)>", text)


def list_anchors(text):
    """List the headings of a page as GitHub names them in links: a second one of the same name ends in -1."""
    anchors, seen = [], {}
    for heading in re.findall(r"(?m)^ {0,3}#{1,6} +(.*?)(?: +#+)? *$", text):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)  # what a link in a heading shows
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        seen[slug] = seen.get(slug, -1) + 1
        anchors.append(f"{slug}-{seen[slug]}" if seen[slug] else slug)
    return anchors + re.findall(r"""<a [^>]*(?:id|name)=["']([^"']+)""", text)


def is_web(link):
    return bool(re.match(r"[a-z][a-z0-9+.-]*:", link, re.IGNORECASE))


def find_broken(path):
    """Find the links of a page to files and headings of the project that there are not."""
    broken = []
    for link in filter(lambda link: not is_web(link), list_links(read(path))):
        name, _, anchor = unquote(link).partition("#")
        target = (path.parent / name).resolve() if name else path
        inside = target.is_relative_to(PROJECT) or not path.is_relative_to(PROJECT)
        if not (inside and target.exists()) or (anchor and anchor not in list_anchors(read(target))):
            broken.append(link)
    return broken


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_lead_somewhere(path):
    assert find_broken(path) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_addresses_of_the_web_can_be_right(path):
    wrong = []
    for link in filter(is_web, list_links(read(path))):
        parts = urlsplit(link)
        host = re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc)
        owner = re.search("OWNER|REPOSITORY", link.replace(PLACEHOLDER, ""))
        if parts.scheme != "https" or not host or owner or re.search(r"[.,;:]$|//", parts.path):
            wrong.append(link)
    assert wrong == []


def test_the_pages_that_are_looked_at_have_links():
    assert sum(len(list_links(read(path))) for path in PAGES) > 300
    assert {"README.md", "README.fr.md", "CONTRIBUTING.md", "CHANGELOG.md"} <= {path.name for path in PAGES}
    assert len(NOTEBOOKS) == 6


def test_broken_links_are_found(tmp_path):
    (tmp_path / "there.md").write_text("# A `small` [page](x)\n\n## Twice\n\n## Twice\n", encoding="utf-8")
    page = tmp_path / "page.md"
    right = ["there.md", "there.md#a-small-page", "there.md#twice-1", "#own-heading_1", "https://web.example/x"]
    wrong = ["gone.md", "there.md#gone", "there.md#twice-2", "#gone"]
    lines = [f"[text]({link}) ![picture]({link} 'title')" for link in right + wrong]
    lines += ['<img src="gone.png">', "[name]: gone_too.md", "`[code](gone.md)`", "```", "[code](gone.md)", "```"]
    page.write_text("# Own heading_1\n\n" + "\n".join(lines), encoding="utf-8")
    assert sorted(set(find_broken(page))) == sorted([*wrong, "gone.png", "gone_too.md"])


def test_the_glossary_lists_its_terms_and_has_an_example_in_numbers_for_each():
    introduction, *entries = read(GLOSSARY).split("\n## ")
    linked = [link.removeprefix("#") for link in list_links(introduction) if link.startswith("#")]
    assert sorted(linked) == sorted(list_anchors(read(GLOSSARY))[1:])
    assert len(entries) >= 24
    assert [entry for entry in entries if not re.search(r"\d", entry.partition("\n")[2])] == []


def test_all_notebooks_open_in_colab_in_the_same_words():
    texts = set()
    for path in NOTEBOOKS:
        cell = json.loads(path.read_text(encoding="utf-8"))["cells"][1]
        source = "".join(cell["source"])
        (address,) = re.findall(r"https://colab[^)\s]+", source)
        assert address.endswith(f"/{PLACEHOLDER}/blob/main/{path.relative_to(PROJECT)}")
        assert "https://" not in re.sub(r"\]\([^)]*\)|```[^`]*```", "", source)  # no picture is loaded from elsewhere
        assert "![" not in source
        texts.add(source.replace(path.name, ""))
    assert len(texts) == 1


if __name__ == "__main__":
    addresses = {link for path in PAGES for link in list_links(read(path)) if is_web(link)}
    sys.stdout.write("".join(f"{link}\n" for link in sorted(addresses)))
