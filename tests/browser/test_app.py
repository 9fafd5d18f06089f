"""Your own image as a person meets it: served by Voilà, and in JupyterLab; good, odd and hostile pictures."""

import http.client
import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

MOST_SECONDS = 2  # from a picture to its answer, the model being loaded
EVIL = '<img src=x onerror="alert(1)">.png'
TRAIN = """
from helpers import Experiment, open_data_set
from helpers.training.fit import Recipe
from helpers.training.networks import build_cnn

for name, data_set, shape in (("01_mnist", "mnist", (28, 28, 1)), ("02_ham10000", "ham10000", (48, 64, 3))):
    experiment = Experiment(name)
    data = open_data_set(data_set, experiment, most=400)
    data.split_images(validation=0.2, test=0.2)
    x = data.load_pixels(shape)
    statistics = [99] * shape[2], [60] * shape[2]
    build = lambda: build_cnn(shape, len(data.class_names), statistics, filters=((4,), (8,)))
    experiment.fit("small_cnn", build, x, Recipe(epochs=1, batch_size=32))
    experiment.save_model("small_cnn")
"""


def start(project, log, *command):
    """Start a command in the copy of the project as a person does; what it says goes to a file."""
    own = {"PYTHONPATH": str(project), "DATA_SOURCE": "sample", "NOTEBOOK_MODE": "quick"}
    given = {name: text for name, text in os.environ.items() if name not in ("NOTEBOOK_PROGRESS", "DATA_DIR")}
    with open(log, "w") as file:
        return subprocess.Popen([sys.executable, *command], cwd=project, env=given | own, stdout=file, stderr=file)


@pytest.fixture(scope="session")
def models(project, tmp_path_factory):
    """Train two small models of the sample and save them."""
    log = tmp_path_factory.mktemp("training") / "log.txt"
    assert start(project, log, "-c", TRAIN).wait(300) == 0, log.read_text()


@pytest.fixture(scope="session")
def app(project, models, tmp_path_factory):
    """Serve the page as ``make app`` does; its process and its address."""
    log = tmp_path_factory.mktemp("app") / "log.txt"
    server = start(project, log, "-m", "helpers.app", "--no-browser")
    deadline = time.monotonic() + 60
    while not (found := re.search(r"http://127\.0\.0\.1:\d+/", log.read_text())):
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield server, found[0]
    server.terminate()
    server.wait(30)


@pytest.fixture
def opened(page, app):
    """Open the page, with a model loaded; no script may have run at the end that a picture brought."""
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    page.goto(app[1])
    wait_for_status(page, "Ready.")
    yield page
    assert page.locator("img[src=x]").count() == 0


def wait_for_status(page, text):
    expect(page.locator(".own-image").filter(has_text=text).first).to_be_visible(timeout=60_000)


def encode(image, kind="PNG", **options):
    image.save(stream := io.BytesIO(), kind, **options)
    return stream.getvalue()


def draw_lesion(size=(300, 225), number=0):
    pixels = np.full((size[1], size[0], 3), (205, 150, 140), "uint8")
    pixels[80 + number : 140, 110:190] = 90, 60, 50
    return Image.fromarray(pixels)


def give(page, folder, *files):
    """Choose files, pairs of name and content, by the button; they lie in a folder."""
    for name, content in files:
        (folder / name).write_bytes(content)
    with page.expect_file_chooser() as chooser:
        page.locator(".own-image-upload").click()
    chooser.value.set_files([folder / name for name, _ in files])


def test_the_page_shows_no_code_and_loads_nothing_from_elsewhere(page, app):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(app[1])
    expect(page.locator(".own-image-upload")).to_be_visible(timeout=60_000)
    wait_for_status(page, "The model is being loaded")
    wait_for_status(page, "Ready. Which digit is it?")
    assert "show_page" not in page.locator("body").inner_text()
    assert "Not for clinical use" in page.locator("body").inner_text()
    assert [url for url in asked if not re.match(r"(http|ws)://127\.0\.0\.1:|data:|blob:", url)] == []
    response = page.request.get(f"{app[1]}voila/files/07_your_own_image.ipynb")
    assert response.status >= 400  # of all files only the glossary is served
    assert page.request.get(f"{app[1]}voila/files/glossary.md").ok
    assert "Shift + Enter" not in page.locator("body").inner_text()
    with page.expect_popup() as glossary:  # a link that left the page would end its kernel
        page.get_by_role("link", name="Grad-CAM").click()
    expect(glossary.value.locator("body")).to_contain_text("Grad-CAM")
    glossary.value.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_picture_is_answered_within_two_seconds_and_the_answer_fits(opened, width, tmp_path):
    opened.set_viewport_size({"width": width, "height": 844})
    opened.locator("select").select_option(label="Drawn sample · HAM10000 skin lesions: small cnn")
    wait_for_status(opened, "seven kinds of skin lesion")
    seconds = []
    for name, shown in (("1.png", "1.png"), ("2.png", "2.png"), (EVIL, "Your picture: <img src=x")):
        start_time = time.monotonic()
        give(opened, tmp_path, (name, encode(draw_lesion())))
        wait_for_status(opened, shown)
        wait_for_status(opened, "Answered in")
        seconds.append(time.monotonic() - start_time)
    assert min(seconds) <= MOST_SECONDS  # of several, because the machine may have other work too
    answer = opened.locator(".own-image").last
    for text in (
        "Your picture: <img src=x onerror",
        "Where it looks (Grad-CAM)",
        "Certainty set",
        "Not for clinical use",
    ):
        expect(answer).to_contain_text(text)
    expect(answer.locator("img")).to_have_count(7)  # three of the picture, four of the sample
    for image in answer.locator("img").all():
        assert image.evaluate("image => image.naturalWidth") > 0
        assert image.bounding_box()["x"] + image.bounding_box()["width"] <= width
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.locator(".own-image .class").first.bounding_box()["width"] <= width


def test_a_picture_can_be_dropped_and_another_model_reads_it_too(opened):
    content = list(encode(draw_lesion()))
    transfer = opened.evaluate_handle(
        """bytes => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
          return transfer;
        }""",
        content,
    )
    opened.locator(".own-image-upload").dispatch_event("drop", {"dataTransfer": transfer})
    wait_for_status(opened, "Your picture: dropped.png")
    wait_for_status(opened, "Answered in")
    opened.locator("select").select_option(label="Drawn sample · HAM10000 skin lesions: small cnn")
    wait_for_status(opened, "The most similar training images")
    expect(opened.locator(".own-image").last).to_contain_text("dropped.png")
    opened.get_by_role("button", name="Take a picture of the sample").click()
    wait_for_status(opened, "in truth: ")


HOSTILE = {
    "no picture": (("note.png", b"hello"), "cannot identify image file"),
    "empty": (("empty.png", b""), "is empty"),
    "truncated": (("cut.jpg", encode(draw_lesion(), "JPEG")[:900]), "truncated"),
    "bomb": (("bomb.png", encode(Image.new("1", (12_000, 9_000)))), "decompression bomb"),
    "drawing": (
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"),
        "identify",
    ),
    "page": (("a.html", b"<script>alert(1)</script>"), "cannot identify image file"),
    "name": ((EVIL, b"hello"), '<img src=x onerror="alert(1)">.png'),
    "large": (("large.png", bytes(30 * 10**6)), "has 30 MB; at most 20 MB are read"),
}


def test_the_page_goes_on_after_hostile_pictures(opened, tmp_path):
    for file, expected in HOSTILE.values():
        give(opened, tmp_path, file)
        expect(opened.locator(".own-image .alarm").first).to_contain_text(expected, timeout=20_000)
        expect(opened.locator(".own-image h3")).to_have_count(0)
    files = [(f"{number}.png", encode(draw_lesion(number=number))) for number in range(3)]
    give(opened, tmp_path, *files)
    wait_for_status(opened, "Only the first of 3 pictures was read")
    for kind, image, told in (
        ("PNG", Image.fromarray(np.arange(40_000, dtype="uint16").reshape(200, 200)), "has 16 bits"),
        ("JPEG", draw_lesion().convert("CMYK"), "Your picture"),
        ("PNG", Image.new("RGB", (1, 1), "red"), "nearly of one colour"),
    ):
        give(opened, tmp_path, (f"odd.{kind}", encode(image, kind)))
        wait_for_status(opened, told)
        wait_for_status(opened, "Answered in")


def read_memory(process):
    """Sum up the resident memory of all kernels of the server, in MB; Linux tells it."""
    children = subprocess.run(
        ["ps", "--ppid", str(process.pid), "-o", "rss="], capture_output=True, text=True, check=True
    )
    return sum(map(int, children.stdout.split())) / 1024


@pytest.mark.skipif(not Path("/proc").exists(), reason="how much memory a process takes is read as Linux tells it")
def test_memory_does_not_grow_with_the_pictures(opened, app, tmp_path):
    def answer(numbers):
        for number in numbers:
            give(opened, tmp_path, (f"{number}.png", encode(draw_lesion((1200, 900), number))))
            wait_for_status(opened, f"{number}.png")
            wait_for_status(opened, "Answered in")
        return read_memory(app[0])

    before = answer(range(5))
    grown = answer(range(5, 25)) - before
    assert grown < 40, f"{grown:.0f} MB more after 20 pictures"


def test_a_page_of_elsewhere_cannot_take_the_name_of_this_computer(app):
    """As by DNS rebinding: the name of another page leads to this computer."""
    for host, status in (("evil.example:8866", 403), ("localhost:8866", 200)):
        connection = http.client.HTTPConnection(app[1].split("/")[2])
        connection.request("GET", "/voila/files/glossary.md" if status == 200 else "/", headers={"Host": host})
        assert connection.getresponse().status == status
        connection.close()


def test_a_closed_page_ends_its_kernel(page, app):
    before = read_memory(app[0])
    page.goto(app[1])
    wait_for_status(page, "Ready.")
    assert read_memory(app[0]) > before + 100
    page.goto("about:blank")
    deadline = time.monotonic() + 20
    while read_memory(app[0]) > before + 100:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_it_works_in_jupyterlab_too(page, lab, models, tmp_path):
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    page.goto(f"{lab.address}&reset")
    page.locator(".jp-DirListing-item", has_text="07_your_own_image.ipynb").dblclick()
    expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("^Run All Cells")).click()
    wait_for_status(page, "Ready.")
    page.locator(".own-image-upload").scroll_into_view_if_needed()
    give(page, tmp_path, (EVIL, encode(draw_lesion())))
    wait_for_status(page, "Answered in")
    expect(page.locator(".own-image").last).to_contain_text("Not for clinical use")
    give(page, tmp_path, ("large.png", bytes(30 * 10**6)))
    wait_for_status(page, "has 30 MB; at most 20 MB are read")
    page.get_by_role("menuitem", name="File", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("^Close and Shut Down Notebook")).click()
