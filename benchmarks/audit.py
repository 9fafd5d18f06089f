"""The audit of folders: how many of 40 planted faults it finds, how many false alarms it gives, how long it takes.

``python -m benchmarks.audit [DATA_SET ...]`` copies 400 images of each data set in ``DATA_DIR``, no two of one group,
into a temporary folder, plants the faults of `samples.planted` and prints a row for each draw, and the faults that were
not found. Without ``DATA_DIR`` it draws the folder. The faults that a data set has itself count as false alarms. The
seconds are those of the processor, of all cores together.
"""

import os
import re
import shutil
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.audit import audit_folder
from helpers.predict import find_images
from samples import planted

COUNT, SHARE_TEST, SEEDS = 400, 0.3, range(4)  # the limits of the checks were chosen on these draws
CLASSES = {  # those with the most images that experts tell apart
    "ham10000": ("nv", "bcc", "vasc"),
    "chest-xray": ("NORMAL", "PNEUMONIA"),
    "plants": (
        "Apple___healthy",
        "Corn_(maize)___Common_rust_",
        "Orange___Haunglongbing_(Citrus_greening)",
        "Potato___Early_blight",
        "Tomato___Tomato_Yellow_Leaf_Curl_Virus",
    ),
}
_COPIES = re.compile(r"_(flip(LR|TB)|new30degFlipLR|\d+deg)|\.\d+$")  # of one photograph, in the names of plants


def list_images(name, folder, seed):
    """List images of some classes of a data set, one of each group, mixed: a DataFrame ``path, label, group``."""
    files = find_images([folder]).files
    images = pd.DataFrame({"path": files.values(), "label": [path.parent.name for path in files.values()]})
    stems = images["path"].map(lambda path: path.stem)
    if name == "ham10000":
        table = pd.read_csv(folder / "HAM10000_metadata.csv").set_index("image_id").loc[stems]
        images["label"], images["group"] = table["dx"].to_numpy(), table["lesion_id"].to_numpy()
    elif name == "chest-xray":
        images["group"] = images["path"].map(lambda path: path.parts[-3]) + stems.str.extract(r"(person\d+|IM-\d+)")[0]
    else:
        images["group"] = stems.str.replace(_COPIES, "", regex=True)
    images = images[images["label"].isin(CLASSES[name])].sample(frac=1, random_state=seed)
    return images.drop_duplicates("group")


def copy_images(images, folder, seed, count=COUNT):
    """Copy as many images of each class as of the others, as `samples.planted.draw_clean` lays them out."""
    chosen = images.groupby("label").head(count // images["label"].nunique())
    rng = np.random.default_rng(seed)
    for number, row in enumerate(chosen.itertuples()):
        part = "test" if rng.random() < SHARE_TEST else "train"
        target = folder / part / row.label / f"patient{number:04}_1{row.path.suffix.lower()}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(row.path, target)


def measure(name, images, folder, seed):
    """Plant the faults, audit the folder and print what was found; ``images`` is None for a drawn folder."""
    if images is None:
        planted.draw_clean(folder, seed, COUNT)
    else:
        copy_images(images, folder, seed)
    total = len(find_images([folder]).files)
    faults = planted.plant_faults(folder, seed)
    start = time.process_time()
    findings = audit_folder(folder).findings
    seconds = time.process_time() - start
    found, alarms = planted.match_findings(faults, findings), planted.find_false_alarms(faults, findings)
    told = f"found {found.sum()} of {len(faults)}; {len(alarms)} false alarms in {total} images; {seconds:.0f} s"
    print(f"{name}, draw {seed}: {told}", flush=True)
    for row in faults[~found].itertuples():
        print(f"  not found: {row.kind} {' '.join(row.files)}")
    rows = findings[findings["file"].isin(alarms) & (findings["kind"] != "shortcut")]
    for kind, number in rows["kind"].value_counts().items():
        print(f"  false alarms: {kind} {number}")


def main(names=()):
    """Print rows for some data sets, or all; or for the drawn folder."""
    data_dir = os.environ.get("DATA_DIR")
    for name, seed in product(names or (CLASSES if data_dir else ["drawn"]), SEEDS):
        images = list_images(name, Path(data_dir or "data") / name, seed) if name in CLASSES else None
        with tempfile.TemporaryDirectory() as folder:
            measure(name, images, Path(folder), seed)


if __name__ == "__main__":
    main(sys.argv[1:])
