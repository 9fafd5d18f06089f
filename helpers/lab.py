"""Start JupyterLab in the project's folder: ``python -m helpers.lab [OPTION ...]``.

It listens on this machine alone and asks for a token. Options are those of JupyterLab, such as ``--port 8889``.
A notebook that was only run and saved differs from git where an output has really changed, and nowhere else.
"""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from helpers.settings import PROJECT_FOLDER

_OPTIONS = [
    f"--ServerApp.root_dir={PROJECT_FOLDER}",  # so that links to figures/, models/ and reports/ lead there
    "--LabApp.default_url=/lab/tree/notebooks",
    "--ServerApp.ip=127.0.0.1",
    "--ContentsManager.pre_save_hook=helpers.lab.clean_notebook",
]
MOST_BYTES = 2**28  # of a message from the browser: a picture that is too large is to be refused in words


def main(arguments=None):
    """Start JupyterLab and stay until it ends; ``arguments`` are further options, by default the command line's."""
    from jupyterlab.labapp import LabApp

    options = [*_OPTIONS, *(sys.argv[1:] if arguments is None else arguments)]
    print("For long runs take make full: a browser tab that closes loses the output of the cells that run.")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        print("You are root, and so are all notebooks that you run here; a user of your own would be safer.")
        options.append("--allow-root")
    sys.stdout.flush()  # before the log lines of JupyterLab
    server = LabApp.initialize_server(argv=options)
    server.web_app.settings["page_config_hook"] = _leave_out_news
    server.web_app.settings["websocket_max_message_size"] = MOST_BYTES
    server.start()


def _leave_out_news(handler, page_config):
    """Keep JupyterLab from asking whether it may fetch news: nothing here needs the network."""
    news = "@jupyterlab/apputils-extension:announcements"
    return page_config | {"disabledExtensions": [*page_config.get("disabledExtensions", ()), news]}


def clean_notebook(path, model, contents_manager):
    """Drop from a notebook that is about to be saved what tells of its running and not of its results.

    These are the empty outputs that progress lines leave, the times of executions, the state of widgets, the version
    of Python, and how often cells have been executed if they have been in their order. JupyterLab calls it.

    Parameters
    ----------
    path : str
        The place of the notebook below the folder of the server.
    model : dict
        What is about to be saved; ``content`` is the notebook, which is changed in place. Other files stay as they are.
    contents_manager : ContentsManager
        Its ``root_dir`` is the folder of the server.
    """
    if model["type"] != "notebook" or model["content"]["nbformat"] != 4:
        return
    notebook = model["content"]
    for cell in (cells := [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]):
        cell["outputs"] = [output for output in cell["outputs"] if not _is_empty(output)]
        cell["metadata"].pop("execution", None)
    _count_from_one([cell for cell in cells if "".join(cell["source"]).strip()])
    about = notebook["metadata"]
    about.pop("widgets", None)
    with suppress(OSError, ValueError, KeyError):  # no notebook lies there yet
        before = json.loads(Path(contents_manager.root_dir, path.strip("/")).read_text(encoding="utf-8"))["metadata"]
        if about["kernelspec"]["name"] == before["kernelspec"]["name"]:
            about |= {name: before[name] for name in ("kernelspec", "language_info")}


def _is_empty(output):
    """Tell whether an output shows nothing: a display that was emptied, or a stream without text."""
    if output["output_type"] == "stream":
        return not "".join(output["text"])
    return output["output_type"] == "display_data" and not output["data"]


def _count_from_one(cells):
    """Number cells from 1 on if they have been executed in their order, as a fresh kernel would."""
    counts = [cell["execution_count"] for cell in cells]
    if None in counts or counts != sorted(set(counts)):
        return  # a cell is not the last one that ran, or never ran: the numbers tell it
    for count, cell in enumerate(cells, start=1):
        cell["execution_count"] = count
        for output in cell["outputs"]:
            if output["output_type"] == "execute_result":
                output["execution_count"] = count


if __name__ == "__main__":
    main()
