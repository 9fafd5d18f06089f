"""Where a training step spends its time: ``python -m benchmarks.profile`` writes docs/profile.md.

Each network is trained in a process of its own on one core, so that operations run one after the other and their times
add up to that of the step. TensorFlow's profiler tells them; a process of its own kind of machine has its own section.
"""

import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.common import N_CLASSES, NETWORKS, describe_machine, draw_pixels, name_kind, run_alone
from helpers.files import replace_atomically

PAGE = Path(__file__).parents[1] / "docs/profile.md"
BASES = ("mobilenet_v2_0.35", "mobilenet_v2_1.0", "efficientnet_lite0")
STEPS = 5
OPERATION = re.compile(r"\S*[^\s:]:(?:_Mkl(?:Native)?)?([A-Z]\w+)")  # an event such as cnn/conv:_MklNativeConv2D
GROUPS = {  # of TensorFlow's operations: how their names begin, without oneDNN's prefix
    "convolutions forward": ("Conv2D", "FusedConv2D"),
    "their gradients": ("Conv2DBackprop",),
    "depthwise forward": ("DepthwiseConv2dNative", "FusedDepthwiseConv2dNative"),
    "their gradients, depthwise": ("DepthwiseConv2dNativeBackprop",),
    "normalization": ("FusedBatchNormV3", "FusedBatchNormEx"),
    "its gradient": ("FusedBatchNormGrad",),
    "pooling and its gradient": ("MaxPool", "AvgPool", "Mean", "Tile"),
    "gradient of ReLU": ("ReluGrad", "Relu6Grad"),
    "dropout": ("StatelessRandom", "SelectV2", "GreaterEqual"),
    "casts, padding, slices": ("Cast", "Pad", "StridedSlice", "ConcatV2"),
    "optimizer and averaged weights": ("ResourceApplyAdam", "Assign", "ReadVariableOp", "Sub", "Pow"),
    "dense layer and loss": ("MatMul", "FusedMatMul", "BiasAddGrad", "Softmax"),
}


def profile_network(name):
    """Profile the training step of a network of `NETWORKS`."""
    from benchmarks.networks import build, compile_as_fit, draw_batch, list_precisions

    return _profile(compile_as_fit(build(name, list_precisions()[-1])), *draw_batch(name))


def profile_fine_tuning(base):
    """Profile a step that fine-tunes all layers of a pretrained network, here with random weights."""
    from benchmarks.networks import compile_as_fit, list_precisions
    from helpers.training import fast, surgery, transfer

    precision = list_precisions()[-1]
    fast.set_precision("float32")
    extractor = transfer.build_feature_extractor((160, 160, 3), None, base)
    model = surgery.join(extractor, transfer.build_head(np.zeros((1, extractor.output_shape[-1])), N_CLASSES))
    surgery.unfreeze_from(model, "pixels")
    model = compile_as_fit(fast.fuse(model), 1e-5)
    with fast.computing_maps_in(model, precision):
        return _profile(model, *draw_pixels(32, extractor.input_shape[1:]))


def _profile(model, images, labels):
    """Return the milliseconds per step of each of `GROUPS`, of other operations, and beside the graph."""
    from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

    from helpers.training import tf

    for _ in range(3):  # tracing, and the first use of each kernel
        model.train_on_batch(images, labels)
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            start = time.process_time()
            for _ in range(STEPS):
                model.train_on_batch(images, labels)
            whole = time.process_time() - start
        (path,) = Path(folder).rglob("*.xplane.pb")
        space = XSpace.FromString(path.read_bytes())
    spent = Counter()
    for plane in space.planes:
        for event in (event for line in plane.lines for event in line.events):
            found = OPERATION.fullmatch(plane.event_metadata[event.metadata_id].name)
            if found and plane.name == "/host:CPU":
                spent[_find_group(found[1])] += event.duration_ps / 1e9 / STEPS
    return dict(spent) | {"beside the graph": whole * 1e3 / STEPS - spent.total()}


def _find_group(operation):
    """Find the group whose beginning of a name is the longest that fits."""
    fits = [(len(start), group) for group, starts in GROUPS.items() for start in starts if operation.startswith(start)]
    return max(fits)[1] if fits else "other operations"


def format_section(profiles):
    """Format a section of the page: a row for each group, a column for each network; shares of the step in percent."""
    machine = describe_machine()
    kind = name_kind(machine)
    names = [*GROUPS, "other operations", "beside the graph"]
    table = [["share of the step, %", *profiles], ["---"] + ["---:"] * len(profiles)]
    totals = {name: sum(spent.values()) for name, spent in profiles.items()}
    for group in names:
        table.append([group, *(f"{100 * spent.get(group, 0) / totals[name]:.1f}" for name, spent in profiles.items())])
    table.append(["**whole step, ms**", *(f"**{total:.0f}**" for total in totals.values())])
    lines = "\n".join(f"| {' | '.join(row)} |" for row in table)
    versions = machine["versions"]
    about = f"{machine['processor']}, one core, TensorFlow {versions['tensorflow']}, Keras {versions['keras']}"
    return f"## {kind[0].upper()}{kind[1:]}\n\n{about}.\n\n{lines}\n"


def main():
    """Profile all networks and write their section of the page."""
    profiles = {f"CNN {name}": run_alone(profile_network, name, one_core=True) for name in NETWORKS}
    profiles |= {f"{base}, fine-tuned": run_alone(profile_fine_tuning, base, one_core=True) for base in BASES}
    section = format_section(profiles)
    page = PAGE.read_text(encoding="utf-8")
    heading = section.split("\n", 1)[0]
    kept = re.sub(rf"(?ms)^{re.escape(heading)}\n.*?(?=^## |\Z)", "", page)
    with replace_atomically(PAGE) as unfinished:
        unfinished.write_text(f"{kept.rstrip()}\n\n{section}", encoding="utf-8")
    print(section)


if __name__ == "__main__":
    sys.exit(main())
