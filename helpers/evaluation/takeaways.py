"""Takeaways: the sentence that says what a figure or a table shows, where several notebooks show the same kind.

Each sentence depends on the numbers: it says what they say, also where this is that nothing was gained. Functions take
what the figure is drawn from and return a str in Markdown.
"""

import numpy as np

from helpers.evaluation.report import format_difference, format_value, get_title
from helpers.evaluation.scores import find_confused_pairs, is_right

_OVERFITS = 0.12  # difference of accuracies
_ALIKE = 0.005  # calibration errors that differ by less are called the same


def describe_counts(values, what="images"):
    """Say which value is the most frequent one and which the rarest, and how often each occurs; ``values`` is a Series.

    Examples
    --------
    >>> import pandas as pd
    >>> describe_counts(pd.Series(["mole", "mole", "mole", "melanoma"]))
    '**mole** has the most images, 3 of 4 (75.0 %); **melanoma** has the fewest, 1 (25.0 %).'
    """
    counts = values.value_counts()
    most, fewest = counts.max(), counts.min()
    if most == fewest:
        return f"All have the same number of {what}, {most:,} each."
    (first, has), (last, have) = (_list_names(counts.index[counts == count]) for count in (most, fewest))
    return (
        f"{first} {has} the most {what}, {most:,} of {counts.sum():,} ({100 * most / counts.sum():.1f} %); "
        f"{last} {have} the fewest, {fewest:,} ({100 * fewest / counts.sum():.1f} %)."
    )


def _list_names(names):
    """List names in bold, with the verb that fits to their number."""
    names = [f"**{name}**" for name in names]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])), "has" if len(names) == 1 else "have"


def describe_history(name, history, watched="validation"):
    """Say how far a training came, and whether it over-fits: from a history of `helpers.training.fit.fit_model`."""
    last, losses = history.iloc[-1], history["val_loss"]
    text = (
        f"**{name}** has an accuracy of {last['accuracy']:.1%} in training and {last['val_accuracy']:.1%} in {watched} "
        "in its last epoch. "
    )
    if last["accuracy"] - last["val_accuracy"] > _OVERFITS:
        text += "Training is far better: the network over-fits, that is, it learns its training images by heart. "
    best = losses.idxmin()
    if len(history) == 1:
        text += "It was trained for one epoch only."
    elif best == history.index[-1]:
        text += f"Its {watched} loss is lowest in the last epoch, so that more epochs might help."
    elif losses.iloc[-1] > 1.1 * losses[best]:
        text += (
            f"Its {watched} loss is lowest in epoch {best} ({losses[best]:.2f}) and then rises to "
            f"{losses.iloc[-1]:.2f}: a sign of over-fitting, or chance where there are few images."
        )
    else:
        text += f"Its {watched} loss hardly changes after epoch {best}."
    return text


def describe_confusion(predictions):
    """Say how many predictions are wrong, and which two classes are taken for one another most often."""
    wrong = int((~is_right(predictions)).sum())
    if not wrong:
        return f"All {len(predictions):,} images are classified right."
    text = f"{wrong:,} of {len(predictions):,} images are classified wrong"
    pairs = find_confused_pairs(predictions, 2)
    if predictions["y_true"].nunique() < 3 or pairs["errors"].nunique() < len(pairs):
        return f"{text}."
    errors, first, second = pairs.loc[0, ["errors", "first", "second"]]
    return (
        f"{text}; {errors} of these {'error is' if errors == 1 else 'errors are'} between **{first}** and "
        f"**{second}**, more than between any other two classes."
    )


def describe_roc(roc):
    """Say which curve of `helpers.evaluation.scores.compute_roc` is the highest, which the lowest, beside chance."""
    kind = "model" if "model" in roc else "class"
    areas = roc.groupby(kind, sort=False)["roc_auc"].first().sort_values(ascending=False)
    if len(areas) == 1:
        return f"The ROC AUC is {areas.iloc[0]:.3f}; chance would reach 0.5."
    return (
        f"The ROC AUC is largest for **{areas.index[0]}** ({areas.iloc[0]:.3f}) and smallest for "
        f"**{areas.index[-1]}** ({areas.iloc[-1]:.3f}); chance would reach 0.5."
    )


def describe_calibration(first, last, temperature):
    """Say what calibration did to the calibration error, and what the temperature means.

    ``first`` and ``last`` are from `helpers.evaluation.scores.compute_calibration_error`, before and after it.
    """
    text = f"The expected calibration error is {format_value(first)} before and {format_value(last)} after calibration"
    if temperature < 0.06 or temperature > 19:
        reason = "all validation images are right" if temperature < 1 else "the model knows nothing about them"
        return (
            f"{text}. The temperature of {temperature:.2f} is the limit of the search, because {reason}: these images "
            "cannot tell how sure the model should be, and the calibrated confidence is not to be trusted."
        )
    change, known = last["value"] - first["value"], not np.isnan([first["low"], last["low"]]).any()
    apart = known and (first["low"] > last["high"] or last["low"] > first["high"])
    verdict = (
        "that is, it hardly changed"
        if abs(change) < _ALIKE
        else f"so it {'helped' if change < 0 else 'did harm'}"
        if apart
        else f"which is {'lower' if change < 0 else 'higher'}, but the intervals overlap, so that it may be chance"
    )
    meaning = "The model was too sure" if temperature > 1 else "The model was not sure enough"
    meaning = "The model was about as sure as it should be" if np.isclose(temperature, 1, atol=0.05) else meaning
    text = f"{text}, {verdict}. {meaning} on the validation images (temperature {temperature:.2f})."
    if np.isnan(last["low"]):
        return text
    told = "tell the calibrated model from" if last["low"] > 0 else "do not tell the calibrated model from"
    return f"{text} These images {told} a perfectly calibrated one."


def describe_worst(row, metric):
    """Say for which subgroup a model is worst: ``row`` is from `helpers.evaluation.thresholds.find_worst_subgroup`."""
    if row is None:
        return f"No subgroup has enough groups for an interval of its {metric}."
    if row["value"] >= row["overall"]:
        return f"No subgroup has a lower {metric} than all images ({row['overall']:.1%})."
    sure = "lies below" if row["below"] else "holds"
    verdict = "" if row["below"] else ", so that this may be chance"
    return (
        f"The {metric} is lowest for **{row['by']}: {row['subgroup']}**, {row['value']:.1%} ({row['low']:.1%} to "
        f"{row['high']:.1%}, widened because it is the worst of {row['compared']}). The interval {sure} the "
        f"value of all images{verdict}."
    )


def describe_choice(table, chosen, metric, lead):
    """Say which model is chosen, by the table of `helpers.experiment.Experiment.choose`, and why.

    ``lead`` is the difference between the best model and the best simple one, from
    `helpers.evaluation.choosing.choose_simple`, whose name it has.
    """
    reached = {name: f"{value:.3f}" if metric == "roc_auc" else f"{value:.1%}" for name, value in table[metric].items()}
    other = table[metric].drop(chosen).idxmax()
    text = f"**{chosen}** is chosen ({get_title(metric)} {reached[chosen]})"
    if chosen == lead.name:
        return f"{text}. The best other model is ahead by {format_difference(lead)}, which does not prove it better."
    return (
        f"{text}; the next one, **{other}**, has {reached[other]}. It is ahead of {lead.name}, the simplest model, by "
        f"{format_difference(lead)}, which is more than chance."
    )
