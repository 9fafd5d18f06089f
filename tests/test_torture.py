"""The short forms of `make torture`: a case of each kind goes as expected."""

from importlib import import_module

import pytest

from benchmarks.torture import PARTS


@pytest.mark.parametrize("part", PARTS)
def test_everything_goes_as_expected(part):
    cases = import_module(f"benchmarks.torture.{part}").run(short=True)
    assert cases
    assert [case for case in cases if not case.right] == []
