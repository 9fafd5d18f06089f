"""The short forms of `make torture`: a case of each kind goes as expected."""

import pytest

from benchmarks.torture import PARTS, run_part

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.mark.parametrize("part", PARTS)
def test_everything_goes_as_expected(part):
    cases = run_part(part, short=True)
    assert cases
    assert [case for case in cases if not case.right] == []
