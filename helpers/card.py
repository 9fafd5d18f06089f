"""Model card: a page in Markdown beside every saved model: what it is, how good it is, and what it is not for.

The headings are those of Mitchell et al. (2019) and of the cards on Hugging Face. Everything is computed: from the
experiment, the saved file and the review. This module stands above the three rooms, which it knows.
"""

import shlex
import textwrap

import numpy as np

from helpers.training import fast, saving, transfer  # isort: skip  (first: they start TensorFlow without its log lines)

from helpers.evaluation import foreign, report, scores, thresholds
from helpers.evaluation.bootstrap import FEWEST_GROUPS, compute_proportion
from helpers.files import replace_atomically

_METRICS = {
    "accuracy": "the share of the images whose class is right",
    "balanced_accuracy": "the share of the images of a class that are found, as a mean over the classes",
    "macro_f1": "the balance of precision and sensitivity, as a mean over the classes",
    "roc_auc": "the share of the pairs of an image of a class and one of another class in which the first gets the "
    "higher probability for this class; .5 is chance, 1 is perfect",
    "sensitivity": "the share of the images that should raise an alarm and do",
    "specificity": "the share of the images that should raise no alarm and raise none",
    "precision": "the share of the alarms that are right",
    "expected_calibration_error": "the expected calibration error, that is, how far confidence and accuracy are apart "
    "on average; 0 is best",
    "majority_rate": "the accuracy of naming the most frequent class every time",
}
_TITLES = {"majority_rate": "majority class"}
_COMPARED = 64  # test images
_ROUNDING = 0.02  # of probabilities in bfloat16


def write_card(experiment, name, results=None):
    """Write the card of a saved model beside its file, as ``<name>.md``, and return its path.

    Parameters
    ----------
    experiment : Experiment
        Has saved a model under this ``name``. If it was reviewed, the card has the answers so far.
    results : dict, optional
        From `helpers.evaluation.report.Report.save_results`. Without them the card says that it is not complete.
    """
    saved, review = experiment.saved[name], experiment.reviews.get(name)
    if review is not None and review.model is not saved["model"]:
        review = None
    sections = [
        *_tell_head(experiment, saved),
        *_tell_details(experiment, name, saved, results),
        *_tell_use(experiment, saved),
        *_tell_data(experiment, review, results),
        *_tell_evaluation(experiment, name, saved, review, results),
        *_tell_refusal(saved, review),
        *_tell_limits(experiment, review),
        *_tell_licence(experiment),
    ]
    path = saved["path"].with_suffix(".md")
    with replace_atomically(path) as unfinished:
        unfinished.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    return path


def _tell_head(experiment, saved):
    record, mark = experiment.data.record, experiment.report.mark
    yield f"# Model card: {saved['path'].stem}, {f'{mark} of ' if mark else ''}{record.title}"
    if experiment.report.is_sample:
        yield (
            f"**It was trained and tested on the {mark}, not on the real images.** It is there to try the commands. "
            "Its results say nothing about real images."
        )
    elif mark:
        yield f"**It is from a {mark}**, which uses fewer images and epochs than a full run."
    if record.medical:
        yield "**Not for clinical use.** Nobody has tried it on patients."
    yield "The program that trained the model has written this page. Numbers in brackets are 95 % intervals."


def _tell_details(experiment, name, saved, results):
    model, cost, class_names = saved["model"], experiment.measure_cost(name), experiment.data.class_names
    height, width, channels = model.input_shape[1:]
    kind, weights = "grey" if channels == 1 else "colour", model.count_params()
    table = [
        ["", ""],
        ["question", experiment.data.record.task],
        ["output", f"a probability for each of the {len(class_names)} classes: {', '.join(class_names)}"],
        ["input", f"{kind} images, {width} pixels wide and {height} high, with values from 0 to 255"],
        ["preprocessing", "resizing (bilinear); all further steps are layers of the model"],
        ["kind", f"Keras model with {weights:,} weights" if weights else "Keras model without weights to train"],
    ]
    if experiment.base and any(layer.name == "feature_scaling" for layer in fast.list_layers(model)):
        source = transfer.BASES[experiment.base].source
        table.append(["made from", f"{source}, trained on ImageNet; its weights have a licence of their own"])
    if cost:
        trained = f"{cost['epochs']} epochs, {cost['cpu_minutes']:.2g} CPU-minutes, precision {cost['precision']}"
        table.append(["training", trained])
    run = f"notebook `{experiment.name}`, {experiment.settings.mode} mode, seed {experiment.seed}"
    table.append(["made by", run])
    if results:
        table.append(["versions", ", ".join(f"{package} {known}" for package, known in results["versions"].items())])
    yield "## Model details"
    yield _tabulate(table)


def _tell_use(experiment, saved):
    about, name = saving.read_about(saved["path"]), saved["path"].name
    height, width, channels = saved["model"].input_shape[1:]
    mode = "L" if channels == 1 else "RGB"
    whom = "a patient" if experiment.data.record.medical else "a person or a thing"
    yield "## Intended use"
    yield (
        "It is made for learning, and for research on methods. It answers its question for images like those that it "
        f"was trained on. It is not made to decide anything about {whom}."
    )
    notes = ["The command of the project reads many formats of images and marks those that are foreign (see below)."]
    if about.get("views", 1) > 1:
        notes.append(
            f"It averages over {about['views']} mirrored and turned views of an image; the lines below do not."
        )
    if about.get("conformal"):
        notes.append("It calls an image uncertain where several classes, or none, are plausible.")
    if about.get("may_be_inverted"):
        notes.append("An image that looks foreign is also tried with light and dark exchanged.")
    yield " ".join(notes)
    yield f"```sh\npython -m helpers.predict {shlex.quote(name)} FOLDER --out predictions.csv\n```"
    yield "The same in Python, without the project and without the marks:"
    code = f"""\
        import keras
        import numpy as np
        from PIL import Image

        model = keras.models.load_model("{name}")
        class_names = {list(about["class_names"])}
        image = Image.open("image.png").convert("{mode}").resize(({width}, {height}), Image.Resampling.BILINEAR)
        pixels = np.asarray(image, "float32").reshape(1, {height}, {width}, {channels})
        probabilities = model.predict(pixels, verbose=0)[0]
        print(class_names[probabilities.argmax()], probabilities.max())"""
    yield f"```python\n{textwrap.dedent(code)}\n```"


def _tell_data(experiment, review, results):
    data, record, groups = experiment.data, experiment.data.record, experiment.data.images["group"]
    source, _, version = record.handle.partition("/versions/")
    yield "## Training and test data"
    yield (
        f"{record.title}. {record.citation}. Source: `{source}`{f', version {version}' if version else ''}. Licence of "
        f"the data: {record.licence}."
    )
    if experiment.report.is_sample:
        yield f"**No image of it was used, but the {experiment.report.mark}**, which has the same files and classes."
    yield (
        f"{len(data.images):,} images in {groups.nunique():,} groups. What belongs together and makes a group: "
        f"{record.group_rule}."
    )
    sets = {}
    if review is not None:
        sets = {"training": review.training, "validation": review.held_out, "test": review.rows}
    elif "split" in data.images:
        known = [part for part in ("train", "validation", "test") if part in set(data.images["split"])]
        sets = {{"train": "training"}.get(part, part): data.rows(part) for part in known}
    sets = {part: rows for part, rows in sets.items() if len(rows)}  # none was held out from a model of all images
    if sets:
        used = np.concatenate(list(sets.values()))
        left = np.setdiff1d(np.arange(len(groups)), used)
        shown = sets | ({"in none of the sets": left} if len(left) else {})
        table = [["set", "images", "groups"]]
        for part, rows in shown.items():
            count = groups.iloc[rows].nunique()
            table.append([part, f"{len(rows):,}", f"{count:,}" if count else "unknown"])
        yield _tabulate(table)
        apart = sum(groups.iloc[rows].nunique() for rows in sets.values()) == groups.iloc[used].nunique()
        yield f"{'No group is' if apart else 'Some groups are'} in two of the sets."
    if results:
        yield f"Fingerprint of the images: `{results['data']['fingerprint']}`."


def _tell_evaluation(experiment, name, saved, review, results):
    yield "## Evaluation"
    if results is None:
        yield "**This card is not complete:** the results come when the notebook has been executed to its end."
        return
    yield f"How the images were split and the model was chosen: {results['protocol']}."
    if experiment.chosen == name:
        yield "It is the model that was chosen."
    elif experiment.chosen is not None:
        chosen = f"**{experiment.chosen}**"
        if _predicts_alike(experiment, name, experiment.chosen):
            yield f"This file holds the model that was chosen: {chosen}. It is saved under the name **{name}**."
        else:
            yield f"Of the models of the notebook {chosen} was chosen. This file is **{name}**."
    tables = experiment.scores.get(name, {})
    if review is not None:
        tables = tables or {review.part: scores.compute_metrics(review.tested, review.resamples)}
    if tables:
        yield from _tell_results(tables)
    yield f"Runs of this kind that have scored the test images, with this one: {results['test_set_opened']}."
    if review is not None:
        yield from _tell_probabilities(experiment, name, saved, review)
        yield from _tell_subgroups(review)
        yield from _tell_answers(review)


def _predicts_alike(experiment, name, other):
    """Tell whether both have the same predictions of all sets: then one is the other under a second name."""
    own = {part: table for (known, part), table in experiment.predictions.items() if known == name}
    others = {part: experiment.predictions.get((other, part)) for part in own}
    return bool(own) and all(table.equals(others[part]) for part, table in own.items())


def _tell_results(tables):
    """Tell all metrics, with a column for each test set, and what each of them is."""
    rows = [
        ["", *(part.replace("_", " ") for part in tables)],
        ["groups", *(f"{table.loc['accuracy', 'groups']:.0f}" for table in tables.values())],
    ]
    known = {metric for table in tables.values() for metric in table.index}
    titles = {metric: _TITLES.get(metric, report.get_title(metric)) for metric in _METRICS if metric in known}
    for metric, title in titles.items():
        shown = [table.loc[metric] if metric in table.index else None for table in tables.values()]
        rows.append([title, *(report.format_metric(metric, row) for row in shown)])
    yield _tabulate(rows)
    yield "\n".join(f"- {title}: {_METRICS[metric]}" for metric, title in titles.items())


def _tell_probabilities(experiment, name, saved, review):
    """Tell how good the probabilities are, and whether the saved file gives those that were evaluated."""
    yield "### Probabilities"
    if (table := review.answers.get("calibration")) is not None:
        found = table.set_index("measure")
        after, text = found.loc["calibration error"], "The expected calibration error is "
        if "before calibration" in found.index:
            before = found.loc["before calibration"]
            text += f"{report.format_value(before)} before calibration, and {report.format_value(after)} after it"
            text += ". Calibration did not help here" if after["value"] >= before["value"] else ""
        else:
            text += report.format_value(after)
        yield f"{text}."
    some = np.arange(min(_COMPARED, len(review.rows)))
    views = saving.read_about(saved["path"]).get("views", 1)
    given = fast.predict_probabilities(saved["model"], review.x, review.rows[some], views=views)
    difference = float(np.abs(given - scores.get_probabilities(review.tested.iloc[some])[0]).max())
    if difference <= _ROUNDING:
        yield f"The file gives the probabilities that were evaluated, but for rounding: {difference:.3f} at most."
    else:
        text = (
            f"The file gives other probabilities than those that were evaluated. They differ by up to {difference:.2f}."
        )
        if temperature := experiment.temperatures.get(name):
            text += (
                " Those that were evaluated are calibrated by a temperature from held-out images, in Python: "
                f"`probabilities **= {1 / temperature:.4f}; probabilities /= probabilities.sum()`."
            )
        if saved["views"] > views:
            text += f" They are averages over {saved['views']} mirrored and turned views of an image."
        yield text
    if review.positive:
        yield (
            f"There is an alarm where the evaluated probability of {', '.join(review.positive)}"
            f"{' together' if len(review.positive) > 1 else ''} is {review.threshold:.4g} or more."
        )


def _tell_subgroups(review):
    table = review.answers.get("subgroups")
    if table is None:
        return
    metrics = ["accuracy", "sensitivity", "specificity"]
    accuracy = "accuracy of the alarm" if review.positive else "accuracy"
    rows = [["by", "subgroup", "images", accuracy, *metrics[1:]]]
    for (by, subgroup), part in table.groupby(["by", "subgroup"], sort=False):
        part = part.set_index("metric")
        shown = (report.format_metric(metric, part.loc[metric]) for metric in metrics)
        rows.append([by, subgroup, f"{part.loc['accuracy', 'images']:.0f}", *shown])
    if review.positive:
        text = "All three metrics are those of the alarm: it is right where it is raised and should be, and where it "
        text += "is not raised and should not be."
    else:
        text = "Sensitivity and specificity are those of the most probable class, as means over the classes."
    yield "### Subgroups"
    yield f"{text} Subgroups with fewer than {thresholds.FEWEST_IMAGES} test images are left out."
    yield _tabulate(rows)


def _tell_answers(review):
    """Tell what would do without the model, and what disturbs it."""
    lines = []
    if (table := review.answers.get("shortcuts")) is not None:
        best = table.loc[table["value"].idxmax()]
        left = best.filter(like="left_").rename(lambda column: column.removeprefix("left_"))
        lines.append(
            "- Shortcuts, which are the size, brightness, colour, border or file of an image: the best classifier that "
            f"sees nothing else, *{best['shortcut']}*, reaches a ROC AUC of {report.format_value(best)}. On images "
            f"that it finds alike the model reaches {report.format_value(left)}."
        )
    if (table := review.answers.get("robustness_summary")) is not None:
        row = table.iloc[0]
        lines.append(
            f"- Disturbed images: on {len(review.drawn):,} test images the balanced accuracy falls from "
            f"{row['clean']:.1%} to {row['corrupted']:.1%}, as a mean over all corruptions. *{row['worst']}* does most "
            "harm."
        )
    if (table := review.answers.get("leaks")) is not None and "clean" in table:
        row, groups = table.iloc[0], review.images["group"]
        shared = groups.iloc[review.rows].isin(groups.iloc[review.training]).any()
        lines.append(
            f"- Leaks: some of the {len(review.rows):,} test images look like a training image"
            f"{', or share its group' if shared else ''}. The accuracy is {row['all']:.1%} on all test images, and "
            f"{row['clean']:.1%} without these. The table `copies.csv` beside the figures lists the pairs that look "
            "alike, and how: identical, mirrored or turned, cropped or tilted."
        )
    if lines:
        yield "### Shortcuts and disturbances"
        yield "\n".join(lines)


def _tell_refusal(saved, review):
    count = len(saving.read_arrays(saved["path"])["ids"])
    yield "## What it refuses"
    yield (
        f"A classifier names a class for every picture. Therefore the file keeps what {count:,} training images look "
        "like. An image whose distance to all of them is above a limit is **foreign**: `helpers.predict` marks it, and "
        f"its class means nothing. At most {foreign.REFUSED:.0%} of the held-out images are above the limit."
    )
    table = None if review is None else review.answers.get("refused")
    if table is not None:
        first, others = table.iloc[0], table.iloc[1:]
        share = compute_proportion(round(first["images"] * first["refused"]), first["images"])
        text = f"Marked by mistake were {report.format_percent(share, 1)} of the test images."
        yield text + (
            " They look foreign to this model, so that the mark tells little." if share["value"] > 0.2 else ""
        )
        rows = [[row["kind"], f"{row['images']:.0f}", f"{row['refused']:.0%}"] for _, row in others.iterrows()]
        yield _tabulate([["pictures of something else", "images", "marked"], *rows])


def _tell_limits(experiment, review):
    lines = []
    if experiment.data.record.medical:
        lines.append("It is not for clinical use. No clinic has tested it.")
    if review is not None and review.tested.groupby("y_true")["group"].nunique().min() < FEWEST_GROUPS:
        lines.append(
            f"Some class has fewer than {FEWEST_GROUPS} groups of test images, which are too few for an interval."
        )
    lines += [
        "All results hold for images of the same origin and with the same mix of classes. Nobody knows how good it is "
        "with another camera, or in another place.",
        "An image that is not marked as foreign may still be of none of the classes.",
        "It was trained with one seed. The intervals do not tell how much another seed would change.",
        f"More about the limits of these data stands in the Conclusion of the notebook `{experiment.name}`.",
    ]
    yield "## Limits"
    yield "\n".join(f"- {line}" for line in lines)


def _tell_licence(experiment):
    record = experiment.data.record
    yield "## Licence and citation"
    if experiment.report.is_sample:
        text = f"The model was made from the {experiment.report.mark}, not from these data."
    else:
        text = f"The data have their own: {record.licence}. Read it before you pass on a model that was made from them."
    yield f"The code has the MIT licence. {text}"
    yield f"Data: {record.citation}. Code: `CITATION.cff` of the project."


def _tabulate(rows):
    """Write rows of texts, of which the first is the header, as a table in Markdown."""
    lines = [f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])
