"""HTML reports: ``python -m helpers.reports`` writes the pages in ``reports/`` again, and PDF files beside them.

A page is made from an executed notebook that `helpers.run` has left in ``reports/``: its answer first, contents, folded
code, the figures of the run in twice the pixels of the screen, and a text for each that tells what it shows. A page
loads nothing from elsewhere. ``reports/index.html`` has a card for each.
"""

import argparse
import copy
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

from helpers.files import InputError, hold_lock, read_reason, replace_atomically
from helpers.reports.words import WORDS
from helpers.settings import PROJECT_FOLDER, read_settings

# What is slow to import is imported where it is needed, because `helpers.run --list` needs none of it.
NOTEBOOKS_FOLDER = PROJECT_FOLDER / "notebooks"
REPORTS_FOLDER = PROJECT_FOLDER / "reports"
FIGURES_FOLDER = PROJECT_FOLDER / "figures"
APP = "07_your_own_image"  # a page to use, which has no results
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_MARK = re.compile(r"<small><em>(.+?)</em></small>")  # above a table, see helpers.evaluation.marks
_PACKAGES = ("TensorFlow", "Keras")
_MOST_COLUMNS = 10  # of a table in the usual type
_CARD_WIDTH = 400  # of a figure on a card: CSS pixels
_CONTENTS = "<!-- contents -->"  # its place in the template, above all that comes from a notebook
_COLAB = "**In Google Colab.**"  # how the cell begins that only serves who opens a notebook there


def main(arguments=None):
    """Run the command line; return the exit status: 0, 1 (no PDF), or 2 (bad input, or a page cannot be written)."""
    parser = argparse.ArgumentParser(prog="python -m helpers.reports", description="Write the HTML reports and PDFs.")
    parser.parse_args(arguments)
    failures = []
    try:
        names = write_reports()
        if (chromium := find_chromium()) is None:
            sys.stderr.write(
                f"No PDF was written: Chromium is missing (none of {', '.join(_CHROMIUM)} is there). On Debian and "
                "Ubuntu: apt install chromium. Any browser can print the pages, too.\n"
            )
        else:
            with ThreadPoolExecutor(2) as pool:
                failures = list(filter(None, pool.map(partial(print_pdf, chromium), names)))
            write_index()  # which links to them
    except (InputError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stderr.write("".join(f"{failure}\n" for failure in failures))
    sys.stdout.write(f"reports: {REPORTS_FOLDER.relative_to(PROJECT_FOLDER)}/index.html\n")
    return int(bool(failures))


# What is known of a run


def describe_run(name, started, failure):
    """Describe a run that has just ended, to be kept in the metadata of its executed notebook.

    ``started`` is a time of `time.time`. Where the run has exported results, their answers are kept, too.
    """
    folder = _find_folder(name, started)
    about = {
        "date": datetime.fromtimestamp(started).astimezone().isoformat(timespec="minutes"),
        "seconds": time.time() - started,
        "failure": failure,
        "commit": _read_commit(),
        "versions": {"Python": platform.python_version()} | {name: version(name.lower()) for name in _PACKAGES},
        "folder": folder and folder.relative_to(FIGURES_FOLDER).as_posix(),
    }
    if folder and _is_newer(folder / "results.json", started):
        about["answers"] = _answer(name, folder)
    return about


def name_folders(name):
    """Name the folders of figures that a notebook can write to: its own name, and one more for each data set edition.

    Return a set of str, such as ``04_melanoma`` and ``04_melanoma_10000``.
    """
    from helpers.data.catalog import list_data_sets

    return {"_".join(filter(None, [name, record.edition])) for record in list_data_sets()}


def _find_folder(name, started):
    """Find the folder of figures that a run has written to since it started; None where it wrote none."""
    folders = [
        folder
        for kind in ("", "quick", "sample")
        for folder_name in sorted(name_folders(name))
        if (folder := FIGURES_FOLDER / kind / folder_name).is_dir()
        and any(_is_newer(path, started) for path in folder.iterdir())
    ]
    return max(folders, key=lambda folder: folder.stat().st_mtime, default=None)


def _is_newer(path, started):
    return path.is_file() and path.stat().st_mtime >= started - 1  # file systems round


def _answer(name, folder):
    from helpers.evaluation.answers import answer
    from helpers.evaluation.full_run import FullRun

    run = FullRun(folder.name, folder.parent)
    return {language: answer(name, run, folder, language) for language in WORDS}


def _read_commit():
    """Read the commit of the project, with "-dirty" where files differ from it; "unknown" where it is in no Git."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    ceiling = {"GIT_CEILING_DIRECTORIES": str(PROJECT_FOLDER.parent)}  # a repository around the project is another one
    try:
        done = subprocess.run(
            command, cwd=PROJECT_FOLDER, env=os.environ | ceiling, capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


# The pages


def write_reports():
    """Write the page of each executed notebook in ``reports/``, and the index; return their names.

    Raise InputError if there is none.
    """
    names = _list_reports()
    if not names:
        raise InputError(f"there are no reports in {REPORTS_FOLDER.name}/: `make run` makes them.")
    for name in names:
        write_report(name, _read(name))
    write_index()
    return names


def write_report(name, notebook):
    """Write an executed notebook as ``reports/<name>.html``."""
    from helpers.evaluation.answers import FIGURES
    from helpers.reports.pictures import Pictures, find_output

    notebook, language = copy.deepcopy(notebook), read_settings().language
    page = _describe_page(name, notebook, language)
    _, notebook.cells = _take_title(notebook.cells)
    notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith(_COLAB)]
    pictures, place = Pictures(FIGURES_FOLDER, language), _get_run(notebook).get("folder")
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output.metadata["image/png"] = pictures.add(output, place)
    answering = find_output(notebook, FIGURES.get(name))
    page["figure"] = answering and answering.metadata["image/png"]
    _save(name, pictures.embed(_render(notebook, page)))


def write_index():
    """Write ``reports/index.html``, which has a card for each report, and the glossary as a page."""
    from helpers.evaluation.answers import CARD_FIGURES
    from helpers.reports.pictures import Pictures, find_output

    with hold_lock(REPORTS_FOLDER / "index.html", wait=True):  # or it could leave out what another run has written
        language = read_settings().language
        words, pictures, cards = WORDS[language], Pictures(FIGURES_FOLDER, language), []
        for name in _list_reports():
            if name == APP:
                continue
            notebook = _read(name)
            card = _describe_page(name, notebook, language)
            card |= {"name": name, "pdf": _has_pdf(name)}
            if answering := find_output(notebook, CARD_FIGURES.get(name)):
                card["figure"] = pictures.add(answering, _get_run(notebook).get("folder"), _CARD_WIDTH)
            cards.append(card)
        page = {
            "title": words["title"],
            "language": language,
            "words": words,
            "cards": cards,
            "more": _write_more(words),
        }
        template = _make_exporter().environment.get_template("cards.html.j2")
        _save("index", pictures.embed(template.render(page=page)))


def _has_pdf(name):
    """Tell whether there is a PDF of the page as it is, and not of one of an earlier run."""
    page, printed = (REPORTS_FOLDER / f"{name}.{ending}" for ending in ("html", "pdf"))
    return printed.exists() and not (page.exists() and page.stat().st_mtime_ns > printed.stat().st_mtime_ns)


def _write_more(words):
    """Describe what belongs to the reports and is none; write the glossary as a page."""
    import nbformat

    more, glossary, app = [], NOTEBOOKS_FOLDER / "glossary.md", NOTEBOOKS_FOLDER / f"{APP}.ipynb"
    if app.exists():
        heading, _ = _take_title(nbformat.read(app, as_version=4).cells)
        page = f"{APP}.html" if (REPORTS_FOLDER / f"{APP}.html").exists() else ""
        more.append({"heading": heading, "text": words["app"], "file": page})
    if glossary.exists():
        notebook = nbformat.v4.new_notebook()
        notebook.cells = [nbformat.v4.new_markdown_cell(glossary.read_text(encoding="utf-8"))]
        page = {
            "title": words["glossary"],
            "language": "en",
            "words": WORDS["en"],
            "links": {"index.html": words["reports"]},
        }
        text = _render(notebook, page)  # with anchors as GitHub has them
        text = re.sub(r'(?:(?<=<h2 id=")|(?<=href="#))[^"]+', lambda anchor: anchor[0].lower(), text)
        _save("glossary", text)
        more.append({"heading": words["glossary"], "text": words["terms"], "file": "glossary.html"})
    return more


def _list_reports():
    return sorted(path.stem for path in REPORTS_FOLDER.glob("[!.]*.ipynb"))


def _read(name):
    """Read an executed notebook; InputError if it is none."""
    import nbformat

    path = REPORTS_FOLDER / f"{name}.ipynb"
    try:
        return nbformat.read(path, as_version=4)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{path.parent.name}/{path.name} is no notebook ({read_reason(error)}): remove it.") from error


def _take_title(cells):
    """Take the title, the first line of the first cell, from the cells: return it and the cells without it."""
    if not cells or not cells[0].source.startswith("# "):
        return "", cells
    first = copy.copy(cells[0])
    title, _, rest = first.source.partition("\n")
    first.source = rest.strip()
    return title.removeprefix("# ").strip(), [first, *cells[1:]]


def _get_run(notebook):
    """Get what `describe_run` has kept of the run of a notebook; {} of one that was executed otherwise."""
    return notebook.metadata.get("run", {})


def _describe_page(name, notebook, language):
    """Gather what the head of a report and its card tell."""
    from helpers.evaluation.answers import QUESTIONS, keep_together

    words, about = WORDS[language], _get_run(notebook)
    heading, _ = _take_title(notebook.cells)
    if language == "fr":
        heading = keep_together(QUESTIONS.get(name, heading))
    answer = about.get("answers", {}).get(language, "")
    failure = about.get("failure", "").replace(" in cell ", words["in_cell"], 1)
    kind, made_from = ("quick", words["trying"]) if name == APP else _tell_origin(notebook, words)
    links = {"index.html": words["reports"]}
    if (NOTEBOOKS_FOLDER / "glossary.md").exists():
        links["glossary.html"] = words["glossary"]
    return {
        "title": name,
        "heading": heading or name,
        "language": language,
        "words": words,
        "links": links,
        "has_code": True,
        "kind": kind,
        "made_from": made_from,
        "answer": f"{answer[:1].upper()}{answer[1:]}." if answer else "",
        "failure": f"{words['failed']}{failure}" if failure else "",
        "facts": _list_facts(about, words),
    }


def _tell_origin(notebook, words):
    """Tell whether a report was made from a sample, by a quick or by a full run: a word for it, and a sentence."""
    about = _get_run(notebook)
    if not about:
        return "", ""
    if about["folder"] is None:
        return "quick", words["nothing"]
    kind = about["folder"].partition("/")[0] if "/" in about["folder"] else "full"
    outputs = (output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ()))
    mark = next((found[1] for data in outputs if (found := _MARK.match(data.get("text/html", "")))), "sample")
    mark = words.get(mark, mark)
    return kind, words[kind].format(mark=f"{mark[:1].upper()}{mark[1:]}")


def _list_facts(about, words):
    """List what tells where and how a run was made."""
    if not about:
        return {}
    minutes, seconds = divmod(round(about["seconds"]), 60)
    return {
        words["date"]: about["date"][:16].replace("T", " "),
        words["duration"]: f"{minutes} min {seconds} s" if minutes else f"{seconds} s",
        words["versions"]: ", ".join(f"{name} {about['versions'][name]}" for name in ("Python", *_PACKAGES)),
        words["commit"]: about["commit"].replace("-dirty", words["dirty"]),
    }


def _make_exporter():
    from nbconvert import HTMLExporter

    return HTMLExporter(
        template_name="template",
        extra_template_basedirs=[str(Path(__file__).parent)],
        embed_images=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )


def _render(notebook, page):
    """Render a notebook as a page with contents, whose links to notebooks and the glossary go to their pages."""
    from pygments.formatters import HtmlFormatter

    page["code_style"] = HtmlFormatter(style="default").get_style_defs(".highlight")
    resources = {"metadata": {"path": str(NOTEBOOKS_FOLDER)}, "page": page}
    text, _ = _make_exporter().from_notebook_node(notebook, resources)
    text = re.sub(r'(?<=href=")(glossary|\d\d_\w+)\.(?:md|ipynb)', r"\1.html", text)
    text = re.sub(r'<a class="anchor-link".*?</a>', "", text)
    text = re.sub(r"<table.*?</table>", lambda found: _fit_on_paper(found[0]), text, flags=re.DOTALL)
    # Paragraphs that lead to what follows; CSS cannot see how a text begins or ends.
    text = re.sub(r"<p>(?=<strong>|(?:(?!</p>).)*:</p>)", '<p class="leading">', text, flags=re.DOTALL)
    items = [
        f'<li{" class=deeper" if level == "3" else ""}><a href="#{anchor}">{re.sub("<.*?>", "", title)}</a></li>'
        for level, anchor, title in re.findall(r'<h([23]) id="(.*?)">(.*?)</h', text, re.DOTALL)
    ]
    return text.replace(_CONTENTS, f"<ul>{''.join(items)}</ul>", 1)


def _fit_on_paper(table):
    """Let a table be as narrow as paper, which cannot scroll.

    Names of columns may break at underscores, cells with a long word anywhere; many columns get a smaller type.
    """
    table = re.sub(r"(?<=<th>)[^<]*_[^<]*(?=</th>)", lambda found: found[0].replace("_", "_<wbr>"), table)
    table = re.sub(r"<td>(?=[^<]*[^\s<]{18})", '<td class="long">', table)
    many = len(re.findall(r"<th\b", table.partition("</tr>")[0])) > _MOST_COLUMNS
    return f'<div class="many">{table}</div>' if many else table


def _save(name, text):
    with replace_atomically(REPORTS_FOLDER / f"{name}.html") as unfinished:
        unfinished.write_text(text, encoding="utf-8")


# PDF


def find_chromium():
    """Find Chromium, or a browser made from it, as a path; None where there is none."""
    return next(filter(None, map(shutil.which, _CHROMIUM)), None)


def print_pdf(chromium, name):
    """Print ``reports/<name>.html`` as ``reports/<name>.pdf`` on A4; return why it failed, "" if it did not."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "page.pdf"
        command = [chromium, "--headless", "--disable-gpu", f"--user-data-dir={folder}/profile", "--no-first-run"]
        command += ["--disable-background-networking", "--disable-component-update", "--no-pdf-header-footer"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append("--no-sandbox")  # Chromium does not start as root otherwise; the page is our own
        command += [f"--print-to-pdf={written}", (REPORTS_FOLDER / f"{name}.html").as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        except subprocess.TimeoutExpired:
            return f"{name}.pdf: Chromium took more than 3 minutes."
        except OSError as error:
            return f"{name}.pdf: {chromium} cannot be started: {read_reason(error)}."
        if not written.is_file():
            return f"{name}.pdf: Chromium wrote nothing. {done.stderr.strip()[-300:]}"
        with replace_atomically(REPORTS_FOLDER / f"{name}.pdf") as unfinished:
            shutil.copyfile(written, unfinished)
    return ""
