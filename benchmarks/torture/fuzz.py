"""Images damaged at random: each is read or refused, without a crash, a hang or a warning."""

from benchmarks import fuzz
from benchmarks.torture import Case

_COUNT, _SHORT_COUNT = 4000, 200


def run(short=False):
    """Damage so many images of each format and read them: a `Case` for each."""
    table, wrong = fuzz.measure(_SHORT_COUNT if short else _COUNT)
    faults = {int(text.split()[0]): text for text in wrong}
    formats = [name for name, row in table.iterrows() for _ in range(int(row["files"]))]
    expected = "read or refused, no crash, no hang, no warning"
    return [
        Case(f"{name} {number}", expected, faults.get(number, "as expected"), number not in faults)
        for number, name in enumerate(formats)
    ]
