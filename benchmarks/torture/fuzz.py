"""Images damaged at random: each is read or refused, without a crash, a hang or a warning."""

from benchmarks import fuzz
from benchmarks.torture import Case

_COUNT, _SHORT_COUNT = 4000, 200


def run(short=False):
    """Damage images of each format at random and read them: a `Case` for each format."""
    table, wrong = fuzz.measure(_SHORT_COUNT if short else _COUNT)
    cases = []
    for name, row in table.iterrows():
        faults = [text for text in wrong if f" ({name}): " in text]
        happened = f"{row['read']:,.0f} read, {row['refused']:,.0f} refused, the slowest in {row['seconds']:.2f} s"
        expected = f"{row['files']:,.0f} files read or refused; no crash, hang or warning"
        cases.append(Case(name, expected, "; ".join([happened, *faults]), not faults))
    return cases
