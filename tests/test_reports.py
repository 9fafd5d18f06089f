"""The HTML reports: pages of tiny executed notebooks, and what they have to tell."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser

import pytest
from nbformat import from_dict
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from helpers import reports
from helpers.evaluation.answers import FIGURES, QUESTIONS, answer
from helpers.evaluation.full_run import FullRun
from helpers.evaluation.overview import read_titles
from helpers.reports.words import WORDS
from helpers.settings import PROJECT_FOLDER

RUN = {
    "date": "2026-11-29T14:05+00:00",
    "seconds": 88.3,
    "failure": "",
    "commit": "0123456789ab-dirty",
    "versions": {"Keras": "3.15.1", "Python": "3.13.1", "TensorFlow": "2.21.0"},  # as JSON sorts them
    "folder": "sample/03_chest_xray",
    "answers": {"en": "ROC AUC 0.991 (0.970 to 0.998)", "fr": "Aire sous la courbe ROC : 0,991 (0,970 à 0,998)"},
}
MARKED = "<small><em>drawn sample</em></small><table><thead><tr><th>mean_of_all</th></tr></thead></table>"
NOTEBOOKS = sorted((PROJECT_FOLDER / "notebooks").glob("0[1-6]*.ipynb"))
ALT = "Line chart: ROC curve. Lines: cnn <b>0.99</b>."


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Give a project without notebooks and reports."""
    for constant, name in {
        "NOTEBOOKS_FOLDER": "notebooks",
        "REPORTS_FOLDER": "reports",
        "FIGURES_FOLDER": "figures",
    }.items():
        (tmp_path / name).mkdir()
        monkeypatch.setattr(reports, constant, tmp_path / name)
    monkeypatch.setattr(reports, "PROJECT_FOLDER", tmp_path)
    monkeypatch.delenv("NOTEBOOK_LANGUAGE", raising=False)
    return tmp_path


def draw(width, height, dark="navy"):
    """Draw a picture whose left half is dark."""
    picture = Image.new("RGB", (width, height), "white")
    picture.paste(dark, (0, 0, width // 2, height))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def make_notebook(run=RUN, title="Chest X-ray: is it <pneumonia> & what threshold?", name="roc", alt=ALT):
    """Make an executed notebook with code, a table, and a picture."""
    data = {"text/plain": f"<figure {name}>", "image/png": base64.b64encode(draw(300, 200)).decode()}
    outputs = [
        new_output("display_data", {"text/html": MARKED, "text/plain": "a table"}),
        new_output("display_data", data, metadata={"image/png": {"alt": alt}} if alt else {}),
    ]
    cells = [
        new_markdown_cell(f"# {title}\n\n**Question.** See [leak](glossary.md#leak), [02](02_ham10000.ipynb#data)."),
        new_markdown_cell("**In Google Colab.** Run these lines."),
        new_markdown_cell("## Data\n\nText. CONTENTS\n\nThe table `a: b` **shows**:"),
        new_code_cell("shown = 1  # code", outputs=outputs),
        new_markdown_cell("### Sizes of images"),
    ]
    return new_notebook(cells=cells, metadata={"run": run, "language_info": {"name": "python"}} if run else {})


def write(project, name, notebook):
    (project / "reports" / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")


class Page(HTMLParser):
    """Collects what a page shows and loads."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.text, self._open = [], {}, []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._open.append(tag)

    def handle_data(self, data):
        if self._open:
            self.text[self._open[-1]] = self.text.get(self._open[-1], "") + data

    def find(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def pictures(self):
        return [Image.open(io.BytesIO(base64.b64decode(img["src"].partition(",")[2]))) for img in self.find("img")]


def read_page(project, name):
    return Page(project / "reports" / f"{name}.html")


def test_a_report_begins_with_its_answer(project):
    reports.write_report("03_chest_xray", make_notebook())
    page = read_page(project, "03_chest_xray")
    head = page.source[page.source.index("<header>") : page.source.index("</header>")]
    assert page.source.count("is it &lt;pneumonia&gt; &amp; what threshold?</h1>") == 1
    assert '<p class="answer">ROC AUC 0.991 (0.970 to 0.998).</p>' in head
    assert '<p class="badge sample">Drawn sample: shows how' in head
    for fact in (
        "2026-11-29 14:05",
        "1 min 28 s",
        "Python 3.13.1, TensorFlow 2.21.0, Keras 3.15.1",
        "0123456789ab, with changes",
    ):
        assert fact in head
    assert head.count("<img") == 1  # the figure that shows the answer
    assert len(page.find("img")) == 2
    assert page.source.index("</header>") < page.source.index("Question.")


def test_a_report_can_be_found_through_and_folded(project):
    reports.write_report("03_chest_xray", make_notebook())
    page = read_page(project, "03_chest_xray")
    anchors = {attributes.get("id") for tag, attributes in page.elements if tag in ("h2", "h3")}
    assert anchors == {"Data", "Sizes-of-images"}
    links = [link["href"] for link in page.find("a")]
    assert {f"#{anchor}" for anchor in anchors} <= set(links)
    assert {"index.html", "glossary.html#leak", "02_ham10000.html#data"} <= set(links)
    folded = [details for details in page.find("details") if details.get("class") == "code"]
    assert len(folded) == 1
    assert "open" not in folded[0]
    assert "<span" in page.source.partition('<details class="code">')[2].partition("</details>")[0]
    assert [button["id"] for button in page.find("button")] == ["code"]
    assert "mean_<wbr>of_<wbr>all" in page.source  # so that a long name fits on paper
    assert "Text. CONTENTS" in page.source
    assert "<ul><li><a" in page.source.partition("<main>")[0]


def test_contents_do_not_hide_the_answer_where_no_script_runs(project):
    reports.write_report("03_chest_xray", make_notebook())
    assert all("open" not in details for details in read_page(project, "03_chest_xray").find("details"))


def test_a_report_leaves_out_what_serves_in_colab_only(project):
    assert all("**In Google Colab.**" in path.read_text(encoding="utf-8") for path in NOTEBOOKS)
    reports.write_report("03_chest_xray", make_notebook())
    assert "Colab" not in read_page(project, "03_chest_xray").source


def test_on_paper_a_paragraph_that_leads_to_something_stays_with_it(project):
    reports.write_report("03_chest_xray", make_notebook())
    source = read_page(project, "03_chest_xray").source
    assert re.findall(r'<p class="leading">(?:<strong>)?(\w+)', source) == ["Question", "The"]
    assert ".leading" in re.search(r"[^}]*\{\s*break-after: avoid", source)[0]


@pytest.mark.parametrize(("columns", "is_small"), [(10, False), (11, True)])
def test_only_a_table_of_many_columns_is_small_on_paper(project, columns, is_small):
    notebook = make_notebook()
    table = f"<table><thead><tr>{'<th>a</th>' * columns}</tr></thead></table>"
    notebook.cells[3].outputs[0].data["text/html"] = table
    reports.write_report("03_chest_xray", notebook)
    assert ('<div class="many">' in read_page(project, "03_chest_xray").source) == is_small


def test_a_page_loads_nothing_from_elsewhere(project):
    write(project, "03_chest_xray", make_notebook())
    (project / "notebooks" / "glossary.md").write_text(
        "# Glossary\n\n## Leak\n\nSee [ECE](#ECE).\n\n## ECE\n\nA gap.\n"
    )
    reports.write_reports()
    for name in ("03_chest_xray", "index", "glossary"):
        page = read_page(project, name)
        assert page.find("link") == []
        for _, attributes in page.elements:
            for key in ("src", "srcset", "poster", "data"):
                assert attributes.get(key, "data:").startswith("data:")
        assert not re.search(r"@import|url\(|https?://", page.source)
        assert len(page.source) < 300_000
        assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.find("meta")


def test_a_figure_is_the_exported_one_in_twice_the_pixels(project):
    folder = project / "figures" / "sample" / "03_chest_xray"
    folder.mkdir(parents=True)
    (folder / "roc.png").write_bytes(draw(1500, 1000))
    reports.write_report("03_chest_xray", make_notebook())
    page = read_page(project, "03_chest_xray")
    assert {(img["width"], img["height"], img["alt"]) for img in page.find("img")} == {("300", "200", ALT)}
    for picture in page.pictures:
        assert picture.size == (600, 400)
        assert picture.convert("RGB").getpixel((590, 100)) == (255, 255, 255)  # paper stays white


@pytest.mark.parametrize("other", [draw(1000, 1000), draw(1500, 1000, dark="white"), None])
def test_a_figure_that_a_later_run_has_changed_is_that_of_the_notebook(project, other):
    folder = project / "figures" / "sample" / "03_chest_xray"
    folder.mkdir(parents=True)
    if other:
        (folder / "roc.png").write_bytes(other)
    reports.write_report("03_chest_xray", make_notebook())
    assert {picture.size for picture in read_page(project, "03_chest_xray").pictures} == {(300, 200)}


def test_a_figure_of_the_full_run_is_shown_in_all_its_pixels(project):
    folder = project / "figures" / "03_chest_xray"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"data": {"images": 5840}}))
    (folder / "roc.png").write_bytes(draw(2000, 1400))
    notebook = make_notebook(name="roc of the full run")
    shown = FullRun("03_chest_xray", project / "figures").show_figure("roc")
    notebook.cells[3].outputs[1].data["image/png"] = base64.b64encode(shown.content).decode()
    reports.write_report("03_chest_xray", notebook)
    page = read_page(project, "03_chest_xray")
    assert [img["width"] for img in page.find("img")] == ["1067"]  # it answers for the full run: not at the head
    assert page.pictures[0].width == 2000  # twice as many were not exported
    assert shown.alt == "Full run, 5,840 real images: roc."


def test_every_picture_has_a_text(project):
    reports.write_report("03_chest_xray", make_notebook(alt="", name="mean_images"))
    assert [img["alt"] for img in read_page(project, "03_chest_xray").find("img")] == ["Figure: mean images"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_saved_picture_has_a_text(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})]
    short = [
        "".join(output["data"]["text/plain"])
        for output in outputs
        if len(output["metadata"].get("image/png", {}).get("alt", "")) < 20
    ]
    assert short == []


@pytest.mark.parametrize(
    ("folder", "kind", "text"),
    [
        ("03_chest_xray", "full", "Full run on real images"),
        ("quick/03_chest_xray", "quick", "Quick run on real images"),
        ("sample/03_chest_xray", "sample", "Drawn sample: "),
        (None, "quick", "Nothing was exported"),
    ],
)
def test_a_card_tells_sample_from_real(project, folder, kind, text):
    write(project, "03_chest_xray", make_notebook(RUN | {"folder": folder}))
    reports.write_index()
    found = re.search(r'<p class="badge (\w+)">(.*?)</p>', read_page(project, "index").source)
    assert found[1] == kind
    assert found[2].startswith(text)


def test_the_index_has_a_card_for_each_report(project):
    failed = RUN | {"failure": " in cell 2 (Data): ValueError: one <two>\nthree", "answers": {}}
    write(project, "02_ham10000", make_notebook(failed, "HAM10000: which?", "age"))
    write(project, "03_chest_xray", make_notebook())
    write(project, "99_mine", make_notebook(None, "Mine", "age"))
    write(project, reports.APP, make_notebook(RUN | {"folder": None}, "Your own image"))
    reports.write_report(reports.APP, reports._read(reports.APP))
    (project / "reports" / "03_chest_xray.pdf").touch()
    for path in ("glossary.md", f"{reports.APP}.ipynb"):
        (project / "notebooks" / path).write_text(json.dumps(make_notebook(None, "Your own image")))
    reports.write_index()
    page = read_page(project, "index")
    failed, answered, mine, app, glossary = page.source.split("<article>")[1:]
    assert '<p class="failure">This run failed in cell 2 (Data): ValueError: one &lt;two&gt;\nthree</p>' in failed
    assert "<img" not in failed
    assert '<p class="answer">ROC AUC 0.991 (0.970 to 0.998).</p>' in answered
    assert answered.count("<img") == 1
    assert 'href="03_chest_xray.pdf"' in answered
    assert "is it &lt;pneumonia&gt;" in answered
    assert "badge" not in mine
    assert "make app" in app
    assert '<p class="badge quick">A page for trying models</p>' in read_page(project, reports.APP).source
    assert "../" not in page.source  # a browser would show README.md as raw text
    assert 'href="glossary.html"' in glossary
    assert "pdf" not in failed + mine + app


def test_a_card_has_a_figure_that_can_be_read_when_it_is_small(project):
    notebook = make_notebook(name="confusion_matrix", alt="The matrix.")
    other = make_notebook(name="roc_malignant", alt="The alarm.")
    notebook.cells[3].outputs.append(other.cells[3].outputs[1])
    write(project, "02_ham10000", notebook)
    reports.write_reports()
    assert [img["alt"] for img in read_page(project, "index").find("img")] == ["The alarm."]
    assert read_page(project, "02_ham10000").find("img")[0]["alt"] == "The matrix."  # at the head


def test_a_pdf_of_an_earlier_run_is_not_linked(project):
    write(project, "03_chest_xray", make_notebook())
    for ending, changed in (("pdf", 1_000_000), ("html", 2_000_000)):
        (path := project / "reports" / f"03_chest_xray.{ending}").touch()
        os.utime(path, (changed, changed))
    reports.write_index()
    assert "pdf" not in read_page(project, "index").source


@pytest.mark.parametrize("text", ["", "no JSON", "[]", '{"cells": 1}'])
def test_a_report_that_is_no_notebook_is_told(project, capsys, text):
    (project / "reports" / "mine.ipynb").write_text(text)
    assert reports.main([]) == 2
    assert re.match(r"error: reports/mine\.ipynb is no notebook \(.+\): remove it\.\n", capsys.readouterr().err)


def test_a_card_links_to_a_report_with_an_odd_name(project):
    write(project, 'a "<b>" #2', make_notebook(None, "Mine"))
    reports.write_index()
    page = read_page(project, "index")
    assert 'href="a%20%22%3Cb%3E%22%20%232.html">Report a &#34;&lt;b&gt;&#34; #2</a>' in page.source


def test_the_glossary_has_the_anchors_that_github_gives(project):
    (project / "notebooks" / "glossary.md").write_text(
        "# Glossary\n\n## ROC AUC\n\nSee [ECE](#ece).\n\n## ECE\n\nA gap.\n"
    )
    write(project, "1_text", make_notebook(None))
    reports.write_reports()
    page = read_page(project, "glossary")
    assert re.findall(r'<h2 id="(.*?)"', page.source) == ["roc-auc", "ece"]
    assert {"#roc-auc", "#ece", "index.html"} <= {link["href"] for link in page.find("a")}


def test_head_and_cards_speak_french(project, monkeypatch):
    monkeypatch.setenv("NOTEBOOK_LANGUAGE", "fr")
    write(project, "03_chest_xray", make_notebook(RUN | {"failure": " in cell 2 (Data): ValueError"}))
    reports.write_reports()
    for name in ("03_chest_xray", "index"):
        page = read_page(project, name)
        assert page.find("html") == [{"lang": "fr"}]
        assert "Aire sous la courbe ROC : 0,991 (0,970 à 0,998)." in page.source
        assert QUESTIONS["03_chest_xray"] in page.source.replace("\N{NO-BREAK SPACE}", " ")
        assert "Échantillon dessiné : montre" in page.source
        assert "Ce calcul a échoué dans la cellule 2 (Data)" in page.source
        assert "avec des modifications" in page.source
    assert WORDS["en"].keys() <= WORDS["fr"].keys()


def test_there_is_a_french_question_for_each_notebook_that_has_an_answer():
    titles = read_titles(PROJECT_FOLDER / "notebooks")
    assert list(FIGURES) == list(QUESTIONS) == [name for name in titles if name != reports.APP]


@pytest.mark.parametrize("name", FIGURES)
def test_answers_in_both_languages_have_the_same_numbers(name):
    run, folder = FullRun(name), PROJECT_FOLDER / "figures" / name
    english, french = (answer(name, run, folder, language) for language in ("en", "fr"))

    assert english
    digits = [re.sub(r"\D", "", text.replace("threshold .5", "threshold 0.5")) for text in (english, french)]
    assert sorted(digits[0]) == sorted(digits[1])
    assert not re.search(r"\d\.\d| to |interval", french.replace("intervalle", ""))


def test_a_run_that_lacks_what_its_answer_needs_has_a_simple_one_or_none(tmp_path):
    metrics = {"accuracy": {"value": 0.9, "low": 0.8, "high": 0.95}, "majority_rate": {"value": 0.5}}
    for models, expected in (
        ({"cnn": {"test": metrics}}, "90.0 % (80.0 to 95.0) are right (majority class: 50 %)"),
        ({"cnn": {"test": {}}}, ""),
        ({}, ""),
    ):
        folder = tmp_path / "04_melanoma"
        folder.mkdir(exist_ok=True)
        (folder / "results.json").write_text(json.dumps({"results": models}))
        assert answer("04_melanoma", FullRun("04_melanoma", tmp_path), folder) == expected


def test_a_broken_table_gives_a_simple_answer_or_none(tmp_path):
    metrics = {"accuracy": {"value": 0.9}, "majority_rate": {"value": 0.5}}
    (tmp_path / "02_ham10000").mkdir()
    (tmp_path / "02_ham10000" / "malignant.csv").write_text("metric,value\n1,2,3,4\n1\n1,2,3,4,5,6\n")
    for models, expected in (
        ({"cnn": {"test": metrics}}, "90.0 % (no interval) are right (majority class: 50 %)"),
        ({}, ""),
    ):
        (tmp_path / "02_ham10000" / "results.json").write_text(json.dumps({"results": models}))
        assert answer("02_ham10000", FullRun("02_ham10000", tmp_path), tmp_path / "02_ham10000") == expected


def test_a_run_is_described(project, monkeypatch):
    started = time.time()
    names = (
        "04_melanoma_10000",
        "sample/04_melanoma_10000",
        "sample/04_melanoma_10000_copy",
        "sample/04_melanoma_mine",
    )
    old, new, *_ = folders = [project / "figures" / name for name in names]  # the last two are of other notebooks
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(
            json.dumps({"results": {"cnn": {"test": {"accuracy": {"value": 0.9}, "majority_rate": {"value": 0.5}}}}})
        )
    os.utime(old / "results.json", (started - 100, started - 100))
    (project / "figures" / "04_melanoma").touch()  # no folder of a run
    about = reports.describe_run("04_melanoma", started, "")
    assert about["folder"] == "sample/04_melanoma_10000"
    assert about["answers"]["en"] == "90.0 % (no interval) are right (majority class: 50 %)"
    assert about["answers"]["fr"].startswith("90,0")
    assert about["commit"] == "unknown"  # it is in no repository
    assert about["versions"].keys() == {"Python", "TensorFlow", "Keras"}
    assert str(project) not in json.dumps(about)
    (new / "age.png").touch()
    os.utime(new / "results.json", (started - 100, started - 100))
    about = reports.describe_run("04_melanoma", started, ": failed")
    assert (about["folder"], "answers" in about) == ("sample/04_melanoma_10000", False)  # those of another run
    assert reports.describe_run("02_ham10000", started, "")["folder"] is None


@pytest.mark.skipif(not shutil.which("git"), reason="needs Git")
def test_the_commit_is_that_of_the_project(project):
    def git(*arguments, folder=project):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout

    git("init")
    (project / "README.md").write_text("one")
    git("add", "README.md")
    git("commit", "-m", "one")
    commit = git("rev-parse", "--short=12", "HEAD").strip()
    assert reports.describe_run("01_mnist", 0, "")["commit"] == commit
    (project / "README.md").write_text("two")
    assert reports.describe_run("01_mnist", 0, "")["commit"] == f"{commit}-dirty"


def test_without_reports_the_command_says_what_makes_them(project, capsys):
    assert reports.main([]) == 2
    assert capsys.readouterr().err == "error: there are no reports in reports/: `make run` makes them.\n"


def test_without_chromium_the_pages_are_written_and_it_is_told(project, capsys, monkeypatch):
    monkeypatch.setattr(reports.shutil, "which", lambda name: None)
    write(project, "03_chest_xray", make_notebook())
    assert reports.main([]) == 0
    told = capsys.readouterr()
    assert "No PDF was written: Chromium is missing" in told.err
    assert told.out == "reports: reports/index.html\n"
    assert sorted(path.suffix for path in (project / "reports").iterdir()) == [".html", ".html", ".ipynb"]


def test_a_browser_that_fails_is_told(project, capsys, monkeypatch):
    monkeypatch.setattr(reports, "find_chromium", lambda: "false")
    write(project, "03_chest_xray", make_notebook())
    assert reports.main([]) == 1
    assert "03_chest_xray.pdf: Chromium wrote nothing." in capsys.readouterr().err


def test_a_browser_that_cannot_be_started_is_told(project, tmp_path):
    (browser := tmp_path / "chromium").touch()  # which is no program
    told = reports.print_pdf(str(browser), "03_chest_xray")
    assert told.startswith(f"03_chest_xray.pdf: {browser} cannot be started: ")


@pytest.mark.skipif(not reports.find_chromium(), reason="needs Chromium")
def test_pdfs_are_printed_and_linked(project, monkeypatch):
    write(project, "03_chest_xray", make_notebook())
    assert reports.main([]) == 0
    pdf = (project / "reports" / "03_chest_xray.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert b"595" in pdf or b"594.9" in pdf  # A4 in points
    assert 'href="03_chest_xray.pdf"' in read_page(project, "index").source


@pytest.mark.parametrize("kind", ["slides", "script"])
def test_notebooks_become_slides_and_scripts(kind):
    from nbconvert import get_exporter

    path = PROJECT_FOLDER / "notebooks" / "06_leukemia.ipynb"
    text, _ = get_exporter(kind)().from_filename(str(path))
    if kind == "slides":
        assert text.count("<section>") > 2 * len([cell for cell in read_markdown(path) if cell.source[:3] == "## "])
    else:
        compile(text, "06_leukemia.py", "exec")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_headings_begin_slides(path):
    for cell in read_markdown(path):
        if found := re.match("(#+) ", cell.source):
            assert cell.metadata["slideshow"]["slide_type"] == ("subslide" if len(found[1]) > 2 else "slide")


def read_markdown(path):
    notebook = from_dict(json.loads(path.read_text(encoding="utf-8")))
    cells = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    for cell in cells:
        cell.source = "".join(cell.source)
    return cells
