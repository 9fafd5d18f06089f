"""Every notebook as a reader meets it in JupyterLab: opened from the file browser, run, saved.

A notebook that was only run and saved passes `make test`, and differs from git in the outputs of cells that `make test`
does not compare, and nowhere else.
"""

import importlib.util
import json
import re
from copy import deepcopy
from pathlib import Path

import nbformat
import pytest
from nbval.plugin import coalesce_streams, get_sanitize_patterns
from playwright.sync_api import expect

PROJECT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in PROJECT.glob("notebooks/0[1-6]_*.ipynb"))
QUICKEST = "06_leukemia"
IGNORED = "nbval-ignore-output"
SANITIZED = get_sanitize_patterns((PROJECT / "tests/notebooks/sanitize.cfg").read_text(encoding="utf-8"))
MOST_SECONDS = 900  # of a run, on a machine that has other work to do too


def load_module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


read_tables = load_module(PROJECT / "tests/notebooks/twice.py").read_tables


class Tab:
    """A notebook that is open in JupyterLab."""

    def __init__(self, page, lab, name):
        self.page, self.path = page, lab.project / f"notebooks/{name}.ipynb"
        page.goto(f"{lab.address}&reset")  # without the tabs of the test before
        page.locator(".jp-DirListing-item", has_text=f"{name}.ipynb").dblclick()
        expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=60_000)  # there is a kernel
        self.indicator = page.locator(".jp-Notebook-ExecutionIndicator")

    def choose(self, menu, entry):
        """Choose an entry of a menu."""
        self.page.get_by_role("menuitem", name=menu, exact=True).click()
        self.page.get_by_role("menuitem", name=re.compile(f"^{re.escape(entry)}")).click()  # a shortcut may follow
        if entry.startswith(("Restart", "Close and Shut Down")):
            self.page.locator(".jp-Dialog .jp-mod-accept").click()

    def wait_until_done(self):
        """Wait until the kernel has nothing more to do."""
        expect(self.indicator).to_have_attribute("data-status", "busy")
        expect(self.indicator).to_have_attribute("data-status", "idle", timeout=1000 * MOST_SECONDS)

    def save(self):
        """Save by the keyboard, and read what was saved."""
        self.page.keyboard.press("Control+s")
        expect(self.page.locator(".lm-TabBar-tab.jp-mod-dirty")).to_have_count(0)
        return nbformat.read(self.path, as_version=4)

    def close(self):
        """Close the notebook and its kernel: two of them would share the cores."""
        self.choose("File", "Close and Shut Down Notebook")
        expect(self.page.locator("#jp-main-statusbar")).not_to_contain_text("ipykernel")


def list_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def count_figures(notebook):
    return sum("image/png" in output.get("data", {}) for cell in list_cells(notebook) for output in cell.outputs)


def check_outputs(notebook):
    """No cell failed, none was left out, nothing was written to stderr, and no progress is left."""
    for number, cell in enumerate((cell for cell in list_cells(notebook) if cell.source.strip()), start=1):
        assert cell.execution_count == number
        for output in cell.outputs:
            assert output.output_type != "error", f"{output.ename}: {output.evalue}"
            assert output.get("name") != "stderr", output.text
            assert output.get("data", {"text": output.get("text")})
            assert not re.search(r"\d+ ?% ?·|it/s|█|\r", json.dumps(output, ensure_ascii=False))


def show_compared(notebook):
    """Show the outputs that `make test` compares, as nbval does, but in their order too: by the id of the cell."""
    compared = [cell for cell in list_cells(notebook) if IGNORED not in cell.metadata.get("tags", ())]
    return {cell.id: [show(output) for output in coalesce_streams(deepcopy(cell.outputs))] for cell in compared}


def show(output):
    texts = output.get("data", {output.get("name"): output.get("text")})
    shown = {}
    for kind in sorted(texts.keys() - {"image/png"}):
        shown[kind] = texts[kind]
        for regex, replacement in SANITIZED:
            shown[kind] = re.sub(regex, replacement, shown[kind])
    return shown


def drop_outputs(notebook):
    """Write a notebook as it is saved, but without outputs."""
    bare = deepcopy(notebook)
    for cell in list_cells(bare):
        cell.outputs = []
    return nbformat.writes(bare)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_and_is_saved_as_it_was(page, lab, name):
    path = lab.project / f"notebooks/{name}.ipynb"
    text = path.read_text(encoding="utf-8")
    before = nbformat.reads(text, as_version=4)
    tab = Tab(page, lab, name)
    tab.choose("Run", "Run All Cells")
    tab.wait_until_done()
    after = tab.save()
    tab.close()
    check_outputs(after)
    assert count_figures(after) == count_figures(before) > 0
    assert show_compared(after) == show_compared(before)
    assert drop_outputs(after) == drop_outputs(before)
    assert path.read_text(encoding="utf-8") == nbformat.writes(after) + "\n"  # as others write it
    assert text == nbformat.writes(before) + "\n"


def test_an_interrupted_run_goes_on_and_a_fresh_one_gives_the_same(page, lab):
    """Comes after the test above, with whose results it compares."""
    results = lab.project / "figures/sample" / QUICKEST
    expected = read_tables(results)
    assert "results.json" in expected
    tab = Tab(page, lab, QUICKEST)
    tab.choose("Run", "Run All Cells")
    expect(page.get_by_text(re.compile(r"epoch [2-9]\d* of \d+")).first).to_be_attached(timeout=1000 * MOST_SECONDS)
    page.keyboard.press("i")
    page.keyboard.press("i")
    expect(page.get_by_text(re.compile("was stopped after epoch")).first).to_be_attached()
    expect(tab.indicator).to_have_attribute("data-status", "idle")
    for menu, entry in (("Run", "Run All Cells"), ("Kernel", "Restart Kernel and Run All Cells…")):
        (results / "results.json").unlink(missing_ok=True)
        tab.choose(menu, entry)
        tab.wait_until_done()
        notebook = tab.save()
        check_outputs(notebook)
        assert ("going on after epoch" in str(notebook)) == (menu == "Run")
        assert read_tables(results) == expected
    tab.close()


@pytest.mark.parametrize("target", ["notebooks/glossary.md", "figures/RESULTS.md"])
def test_links_open_in_a_tab(page, lab, target):
    tab = Tab(page, lab, QUICKEST)
    page.locator(f".jp-Notebook a[href*='/files/{target}']").first.click()
    heading = (lab.project / target).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
    expect(page.locator(".jp-RenderedMarkdown h1", has_text=heading).last).to_be_visible()
    page.locator(".lm-TabBar-tab", has_text=tab.path.name).click()
    tab.close()
