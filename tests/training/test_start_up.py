"""What is left when TensorFlow has been imported."""

import gc


def test_garbage_is_collected_but_not_looked_for_in_tensorflow():
    assert gc.isenabled()
    assert gc.get_freeze_count() > 100_000
