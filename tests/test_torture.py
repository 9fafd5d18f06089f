"""The short forms of `make torture`: a case of each kind goes as expected."""

import sys

import pytest

from benchmarks.torture import PARTS, __main__, run_part

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells of processes and memory"),
]


@pytest.mark.parametrize("part", PARTS)
def test_everything_goes_as_expected(part):
    cases = run_part(part, short=True)
    assert cases
    assert [case for case in cases if not case.right] == []


def test_a_case_that_went_wrong_is_told_and_marked(tmp_path, monkeypatch, capsys):
    found = {"fuzz": [("a|b", "c", "<b>\nd", False)], "disks": [("e", "f", "__g__", True)]}
    monkeypatch.setattr(__main__, "run_alone", lambda run, part, short: found[part])
    monkeypatch.setattr(__main__, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(__main__, "PAGE", tmp_path / "page.md")
    assert [__main__.main([part]) for part in found] == [1, 0]
    assert "fuzz: 0 of 1 as expected" in capsys.readouterr().out
    page = (tmp_path / "page.md").read_text()
    assert "| fuzz | images damaged at random | 0 of 1 |" in page
    assert "| a\\|b | c | \\<b> d **wrong** |" in page
    assert "| e | f | \\_\\_g\\_\\_ |\n" in page
