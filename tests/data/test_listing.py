"""Listing: every file once, whatever links there are; what cannot be read is told; files are known by their content."""

import os

import pytest
from PIL import Image

from helpers.data import listing
from helpers.data.listing import IMAGE_ENDINGS, describe_unread, list_files, tell_kind


@pytest.fixture
def folder(tmp_path):
    """Write some files at several depths, and one beside the folder."""
    folder = tmp_path / "data" / "set"
    for name in ("b.png", "a/2.png", "a/1.png", "a/deep/x.png", "../beside.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


FILES = ["b.png", "a/1.png", "a/2.png", "a/deep/x.png"]


def list_names(folder):
    found = list_files(folder)
    return [path.as_posix() for path in found.paths], found.unreadable, found.leftovers


def test_files_are_listed_by_depth_and_name(folder):
    assert list_names(folder) == (FILES, {}, 0)


@pytest.mark.parametrize("place", ["up", "a/up", "a/deep/up"])
@pytest.mark.parametrize("target", [".", "..", "../..", "../../.."])
def test_links_upwards_add_nothing(folder, place, target):
    (folder / place).symlink_to(target)
    assert list_names(folder) == (FILES, {}, 0)


def test_links_are_followed_once_and_last(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/y.png").write_bytes(b"y")
    (tmp_path / "elsewhere/back").symlink_to(folder / "a")
    (folder / "0 link").symlink_to(tmp_path / "elsewhere")
    (folder / "1 link").symlink_to(tmp_path / "elsewhere")
    (folder / "0 inner").symlink_to("a/deep")
    (folder / "file.png").symlink_to("b.png")
    paths, unreadable, _ = list_names(folder)
    assert sorted(paths) == sorted([*FILES, "0 link/y.png", "file.png"])
    assert unreadable == {}


def test_what_cannot_be_read_is_told(folder, monkeypatch):
    os.mkfifo(folder / "pipe.png")
    (folder / "dangling.png").symlink_to("nowhere.png")
    (folder / "circle").symlink_to("circle")
    (folder / "null.png").symlink_to("/dev/null")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    paths, unreadable, _ = list_names(folder)
    assert paths == FILES[:3]
    assert unreadable == {
        "pipe.png": "is a pipe, no regular file",
        "dangling.png": "is a link that leads nowhere (No such file or directory)",
        "circle": "is a link that leads nowhere (Too many levels of symbolic links)",
        "null.png": "is a device, no regular file",
        "a/deep/": "cannot be entered (Permission denied)",
    }


def test_regular_files_are_listed_without_asking_for_their_state(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(listing, "find_obstacle", lambda entry: asked.append(entry.name) or "")
    assert list_names(folder)[0] == FILES
    assert asked == ["a", "deep"]


def test_a_folder_that_is_not_there_is_told(tmp_path):
    assert list_names(tmp_path / "no") == ([], {"./": "cannot be entered (No such file or directory)"}, 0)


def test_leftovers_are_counted(folder):
    for name in (".DS_Store", "a/._1.png", "__MACOSX/a/._2.png", "__MACOSX/3.png", "Thumbs.db", "b.png~", ".git/x/y"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert list_names(folder) == (FILES, {}, 7)


def test_names_of_any_bytes_are_listed(folder):
    name = os.fsdecode(b"caf\xe9.png")
    (folder / name).write_bytes(b"x")
    assert list_names(folder)[0] == ["b.png", name, *FILES[1:]]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((f"photo{ending}", ("image", "")) for ending in sorted(IMAGE_ENDINGS)),
        ("photo.JPG", ("image", "")),
        ("IMG_1.HEIC", ("unread", "HEIC photograph")),
        ("scan.dcm", ("unread", "DICOM file")),
        ("brain.nii", ("unread", "NIfTI file")),
        ("brain.nii.gz", ("unread", "NIfTI file")),
        ("photo.jpg.part", ("unread", "part of a download: fetch it again")),
        ("table.CSV", ("other", "")),
        ("images.tar.gz", ("other", "")),
        ("nothing", ("unread", "file of an unknown format")),
        ("nothing.1", ("unread", "file of an unknown format")),
    ],
)
def test_a_file_is_known_by_its_ending(tmp_path, name, kind):
    (tmp_path / name).write_bytes(b"")
    assert tell_kind(tmp_path / name) == kind


@pytest.mark.parametrize("name", ["ISIC_0024306", "Dr. Smith", "photo.1"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "AVIF", "JPEG2000"])
def test_an_image_without_ending_is_known_by_its_content(tmp_path, name, form):
    Image.new("RGB", (8, 8)).save(tmp_path / name, form)
    assert tell_kind(tmp_path / name) == ("image", "")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC photograph"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC photograph"),
        (b"8BPS\0\1", "file of an image editor"),
        (bytes(128) + b"DICM", "DICOM file"),
        (b"%!PS-Adobe-3.0", "drawing"),
        (b"version https://git-lfs.github.com", "pointer of Git LFS: fetch the file itself with git lfs pull"),
        (bytes(range(40)), "file of an unknown format"),
        (b"", "file of an unknown format"),
    ],
)
def test_another_file_without_ending_is_known_by_its_content(tmp_path, content, what):
    (tmp_path / "file").write_bytes(content)
    assert tell_kind(tmp_path / "file") == ("unread", what)


def test_a_text_without_ending_is_no_image(tmp_path):
    (tmp_path / "LICENSE").write_text("BMI and age of the patients, größer als\n\t0")
    assert tell_kind(tmp_path / "LICENSE") == ("text", "text")


def test_an_image_is_read_under_the_ending_of_a_format_that_is_not(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "photo.heic", format="JPEG")
    assert tell_kind(tmp_path / "photo.heic") == ("image", "")


@pytest.mark.parametrize(
    ("ending", "what"), [(".DNG", "raw photograph"), (".nef", "raw photograph"), (".svs", "slide"), (".ndpi", "slide")]
)
def test_the_preview_in_a_raw_photograph_or_a_slide_is_no_image(tmp_path, ending, what):
    Image.new("RGB", (4, 4)).save(tmp_path / f"photo{ending}", format="TIFF")
    assert tell_kind(tmp_path / f"photo{ending}") == ("unread", what)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("HEIC photograph", "is a HEIC photograph: save it as JPEG or PNG"),
        ("pointer of Git LFS: fetch it", "is a pointer of Git LFS: fetch it"),
        ("file that cannot be opened (Permission denied)", "is a file that cannot be opened (Permission denied)"),
    ],
)
def test_what_to_do_is_told_once(what, told):
    assert describe_unread(what) == told


@pytest.mark.parametrize("content", [b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", b"MM\0+", b"\xff\x4f\xff\x51\0"])
def test_an_image_of_a_rarer_kind_is_known(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert tell_kind(tmp_path / "file") == ("image", "")


def test_a_file_that_cannot_be_opened_is_told(tmp_path):
    assert tell_kind(tmp_path / "no") == ("unread", "file that cannot be opened (No such file or directory)")
