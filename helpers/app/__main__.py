"""Serve the page without its code by Voilà, on this computer only: ``python -m helpers.app``."""

import argparse
import logging
import os
import sys
from pathlib import Path

from helpers.lab import MOST_BYTES
from helpers.settings import PROJECT_FOLDER

_NOTEBOOK = PROJECT_FOLDER / "notebooks" / "07_your_own_image.ipynb"
_GLOSSARY = PROJECT_FOLDER / "reports" / "glossary.html"  # which make run writes
_IDLE = 20 * 60  # seconds after which the kernel of a page ends that was not closed properly


def main(arguments=None):
    """Run the command line until Ctrl-C; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m helpers.app", description="Serve the page Your own image.")
    parser.add_argument("--port", type=int, default=8866, help="default: 8866, or the next one that is free")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page in a browser")
    options = parser.parse_args(arguments)
    if not _NOTEBOOK.exists():
        parser.exit(2, f"{_NOTEBOOK} is not there: start python -m helpers.app in the project's folder.\n")
    from tornado.web import StaticFileHandler
    from traitlets.config import Config  # here only: they take a second to import
    from voila.app import Voila

    class Server(Voila):
        """Voilà that needs no network, and has one line to read: the address."""

        def setup_template_dirs(self):
            super().setup_template_dirs()
            self.template_paths.insert(0, str(Path(__file__).parent / "voila_template"))

        def init_handlers(self):
            """Serve the glossary as a page to read where there is one, else as the text that it is written in."""
            page = [(r"/glossary\.md()", StaticFileHandler, {"path": str(_GLOSSARY)})] if _GLOSSARY.exists() else []
            return [*page, *super().init_handlers()]

        def launch_browser(self):
            sys.stdout.write(f"Your own image: http://127.0.0.1:{self.port}/  (Ctrl-C ends it)\n")
            sys.stdout.flush()
            if not options.no_browser:
                super().launch_browser()

    os.environ["NOTEBOOK_PROGRESS"] = "on"  # a person watches: see show_page
    config = Config()
    config.Voila.ip = "127.0.0.1"
    config.Voila.port = options.port
    config.Voila.log_level = "ERROR"  # warnings tell nothing that a reader could mend, such as a notebook "not trusted"
    logging.getLogger("tornado").setLevel(logging.ERROR)  # nor do these, such as an icon that a browser asked for
    config.Voila.tornado_settings = {
        "allow_remote_access": False,  # a page of elsewhere, whose name leads to this computer, is refused
        "disable_check_xsrf": True,  # a page that is closed could not end its kernel otherwise; nothing else is posted
        "websocket_max_message_size": MOST_BYTES,
    }
    config.VoilaConfiguration.file_allowlist = ["glossary.md"]
    config.VoilaConfiguration.extension_denylist = ["nbdime-jupyterlab"]  # which needs a whole JupyterLab
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_cell_tags = {"jupyterlab-only"}  # what to press there
    config.MappingKernelManager.cull_idle_timeout = _IDLE
    config.KernelManager.transport_encryption = "auto"  # without it each kernel prints a warning
    Server.launch_instance([str(_NOTEBOOK)], config=config)
    return 0


if __name__ == "__main__":
    sys.exit(main())
