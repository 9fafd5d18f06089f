"""The short forms of `make torture`: a case of each kind goes as expected."""

import pytest

from benchmarks.torture import PARTS, run_part


@pytest.mark.parametrize("part", PARTS)
def test_everything_goes_as_expected(part):
    cases = run_part(part, short=True)
    assert cases
    assert [case for case in cases if not case.right] == []
