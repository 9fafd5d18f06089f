"""Training: augmentation, networks, fitting.

TensorFlow is imported here once, without the lines that its C++ start-up writes to standard error.
"""

import gc
import logging
import os
import sys
import tempfile
from contextlib import contextmanager


@contextmanager
def _silent_start_up():
    """Hold back what native code writes to standard error; show it if the block fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def _without_collection():
    """Look for no garbage in the block, nor later in what it leaves: that would take a quarter of the start-up."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


with _silent_start_up(), _without_collection():
    import tensorflow as tf

    tf.config.list_physical_devices()
    tf.constant(0)  # initializes the device runtime, the other noisy moment

# Every network is traced once. TensorFlow takes several networks in one run for one that is traced again and again.
logging.getLogger("tensorflow").addFilter(lambda record: "triggered tf.function retracing" not in record.getMessage())
