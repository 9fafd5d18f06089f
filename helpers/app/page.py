"""The page that a person sees: choose a model, drop a picture in, read the answer."""

import time
from concurrent.futures import ThreadPoolExecutor

from IPython.display import HTML, Markdown, display

from helpers.app.reader import MODELS_FOLDER, Reader, list_models
from helpers.app.rendering import STYLE, render_answer, render_message, shorten_name
from helpers.files import InputError
from helpers.settings import read_progress

_NO_MODEL = (
    "**There is no trained model yet.** `make run` trains small ones on the built-in sample, which takes about five "
    "minutes; run this page again then."
)
_LOADING = "The model is being loaded. The first time this takes some 10 seconds."
_SAVED = "Saved answer; run the cell to choose your own picture."
_CHOICE = "Choose a picture, drop one on the button, or take one of the sample."
_BUTTONS = """<style>
.own-image-upload { font-size: 0; width: auto; height: auto; min-height: 3.4rem; padding: 0.4rem 1rem;
  border: 2px dashed #6a6a6a; border-radius: 4px; white-space: normal; line-height: 1.4; }
.own-image-upload::after { content: "Choose a picture, or drop it here"; font-size: 15px; }
.own-image-upload i { display: none; }
.own-image-sample { width: auto; height: auto; min-height: 3.4rem; font-size: 15px; white-space: normal;
  line-height: 1.4; padding: 0.4rem 1rem; }
.own-image-model { height: auto; padding: 1px; box-sizing: border-box; }
.own-image-model select { font-size: 15px; height: 2.2rem; width: 100%; min-width: 0; box-sizing: border-box; }
.own-image-page { max-width: 54rem; }
</style>"""
# FileUpload takes no files that are dropped: they are put into the field that it would open.
_DROP = """<script>
window.ownImageDrop ??= (() => {
  const find = event => event.target.closest?.(".own-image-upload");
  document.addEventListener("dragover", event => { if (find(event)) event.preventDefault(); }, true);
  document.addEventListener("drop", event => {
    const button = find(event), files = event.dataTransfer.files;
    if (!button) return;
    event.preventDefault();
    event.stopPropagation();
    if (!files.length) return;
    const field = HTMLInputElement.prototype, click = field.click;
    field.click = function () { this.files = files; this.dispatchEvent(new Event("change")); };
    try { button.click(); } finally { field.click = click; }
  }, true);
  return true;
})();
</script>"""


def show_page(folder=MODELS_FOLDER):
    """Show the page, with the models of a folder.

    Where nobody watches, as in a headless run, it shows what the first model says of a picture of the sample instead.
    Without any model it says what to do.
    """
    models = list_models(folder)
    if not models:
        display(Markdown(_NO_MODEL))
    elif read_progress():
        page = Page(models, folder)
        display(page.box, HTML(_DROP))
    else:
        # One of the sample, whose pictures may be shown everywhere.
        title, path = max(models.items(), key=lambda model: model[1].is_relative_to(folder / "sample"))
        reader = Reader(path, folder)
        display(Markdown(f"{_SAVED}\n\nModel: {title}. {reader.task}"))
        if reader.sample:
            answer = reader.read(*reader.sample.get_new(0))
            display(HTML(f"{STYLE}{render_answer(answer, is_sample=True)}"))


class Page:
    """The widgets; ``box`` holds them all.

    A thread of its own loads models and reads pictures, one after the other, so that the page stays alive meanwhile.
    """

    def __init__(self, models, folder=MODELS_FOLDER):
        import ipywidgets as widgets  # here only: not needed where nobody watches

        self._folder, self._reader, self._given, self._shown = folder, None, None, 0
        self._worker = ThreadPoolExecutor(1)
        self.model = widgets.Dropdown(options=list(models.items()), layout={"width": "100%"})
        self.upload = widgets.FileUpload(description="Choose a picture", accept="image/*", multiple=True)
        self.example = widgets.Button(description="Take a picture of the sample", disabled=True)
        self.status, self.answer = widgets.HTML(), widgets.HTML()
        for widget, name in ((self.model, "model"), (self.upload, "upload"), (self.example, "sample")):
            widget.add_class(f"own-image-{name}")
        head = widgets.HTML(f"{STYLE}{_BUTTONS}")
        buttons = widgets.HBox([self.upload, self.example], layout={"flex_flow": "row wrap"})
        self.box = widgets.VBox([head, self.model, buttons, self.status, self.answer])
        self.box.add_class("own-image-page")
        self.model.observe(lambda change: self._start(self._load), "value")
        self.upload.observe(self._take, "value")
        self.example.on_click(lambda button: self._start(self._take_example))
        self._start(self._load)

    def wait(self):
        """Wait until all that was asked for is done."""
        self._worker.submit(lambda: None).result()

    def _start(self, work, *arguments):
        self._worker.submit(self._do, work, *arguments)

    def _do(self, work, *arguments):
        """Do something, and tell what is wrong with it, whatever that may be: the page goes on."""
        try:
            work(*arguments)
        except InputError as error:
            self._tell(str(error), "alarm")
        except Exception as error:
            self._tell(f"That went wrong, by no fault of yours ({type(error).__name__}: {error}).", "alarm")

    def _load(self):
        self._reader, self.example.disabled = None, True
        self._tell(_LOADING)
        self.answer.value = ""
        self._reader = Reader(self.model.value, self._folder)
        self.example.disabled = self._reader.sample is None
        self._tell(f"Ready. {self._reader.task} {_CHOICE}")
        if self._given:
            self._read(*self._given)

    def _take(self, change):
        """Take what was uploaded out of the widget, which would hold it and not notice the same picture again."""
        if files := change["new"]:
            self.upload.value = ()
            first = files[0]
            self._start(self._read, first["name"], bytes(first["content"]), len(files) - 1)

    def _take_example(self):
        name, content = self._reader.sample.get_new(self._shown)
        self._shown += 1
        self._read(name, content)

    def _read(self, name, content, others=0):
        if self._reader is None:
            raise InputError("No model is loaded. Choose another model.")
        start, self._given, self.answer.value = time.perf_counter(), None, ""
        self._tell(f"Reading {shorten_name(name)} …")
        try:
            answer = self._reader.read(name, content)
        except InputError as error:
            raise InputError(f"{shorten_name(name)}: {error}") from error
        self._given = name, content
        self.answer.value = render_answer(answer, self._reader.sample is not None)
        more = f" Only the first of {others + 1} pictures was read: give one at a time." if others else ""
        self._tell(f"Answered in {time.perf_counter() - start:.1f} s.{more} {_CHOICE}")

    def _tell(self, text, kind="note"):
        self.status.value = render_message(text, kind)
