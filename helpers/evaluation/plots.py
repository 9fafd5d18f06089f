"""Plots: data in, Axes out.

Every function takes data and an optional ``ax`` and returns the Axes; those that draw several panels return the Figure.
None writes a file or computes a metric. Colours are those of seaborn's palette for colour-blind readers, and where they
carry a meaning, markers or line styles carry it too. ``images`` is a DataFrame with a row for each image, or an array
(n, height, width, channels) of their pixels from 0 to 255.
"""

import textwrap
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from helpers.evaluation.scores import encode_labels

PALETTE = sns.color_palette("colorblind")
_MANY_CLASSES = 12  # above it the cells of a confusion matrix are small, and names stand upright
_LAYERS = ("InputLayer", "Normalization", "Conv2D", "BatchNormalization", "ReLU", "MaxPooling2D", "Dropout", "Dense")
_LONG_WORD = 9  # letters; longer words do not fit side by side in the usual size
_LETTER = 0.08  # inches that a figure is wide for each letter of a long word
_LEGEND_ROWS = 20  # more names stand in several columns
_OUTSIDE = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
_BESIDE = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)}
# Nine colours (the tenth is a light yellow), seven markers, seven lines: up to seven models differ in more than colour.
_COLORS, _MARKERS = PALETTE[:8] + PALETTE[9:], "osD^vPX"
_LINES = ["-", "--", "-.", ":", (0, (9, 2)), (0, (4, 1, 1, 1, 1, 1)), (0, (2, 1))]  # the last three in points: on, off
_STEPS = (1, 2, 5, 10)  # between ticks
_TEXT_HEIGHT = 0.06  # of a small line, as a share of the axes
_PERCENT = FuncFormatter(lambda share, _: f"{100 * share:.6g}%")  # with as many decimals as a tick needs


def set_style():
    """Set the look of all figures that follow: fonts for print, a light grid, the colour-blind palette."""
    sns.set_theme(context="notebook", style="whitegrid", palette=PALETTE)
    look = {"figure.figsize": (7, 4.2), "figure.dpi": 80, "axes.titlesize": "medium", "grid.alpha": 0.5}
    plt.rcParams.update(look | {"figure.constrained_layout.use": True, "figure.max_open_warning": 0})


def plot_counts(images, column="label", order=None, by=None, horizontal=False, title="Images per class", ax=None):
    """Draw how many images there are of each value of a column.

    The column ``by`` divides each bar into bars of several colours. Without an ``order`` of the values, bars are sorted
    by value; horizontal ones, which suit many or long names, by size.
    """
    counts = images[column].value_counts()
    order = list((counts if horizontal else counts.sort_index()).index if order is None else order)
    parts = images[by].nunique() if by else 1
    if horizontal:
        size, long, short = {"height": 0.8 + (0.15 + 0.15 * parts) * len(order)}, "y", "x"
    else:
        wide = max(0.4 + 0.3 * parts, _LETTER * _find_longest(order))
        size, long, short = {"width": max(6, wide * len(order))}, "x", "y"
    ax = _new_axes(ax, **size)
    look = {"hue": by, "palette": "colorblind"} if by else {"color": PALETTE[0]}
    sns.countplot(images, **{long: column}, order=order, **look, saturation=1, ax=ax)
    if not horizontal:
        _name_ticks(ax, order)
    for bars in ax.containers:
        ax.bar_label(bars, fontsize=7, padding=2, rotation=90 if parts > 1 and not horizontal else 0)
    ax.margins(**{short: 0.18})
    if by:
        sns.move_legend(ax, **_OUTSIDE)
    name = "class" if column == "label" else column.replace("_", " ")
    ax.set(**{f"{long}label": name, f"{short}label": "images", "title": title})
    ax.grid(False, axis=long)
    return ax


def plot_distribution(images, column, by=None, binwidth=None, xlabel=None, title="", ax=None):
    """Draw the distribution of a number, of all images or side by side for the values of the column ``by``.

    The shares of each part sum to 1, so that parts of different size compare. Missing values are left out.
    """
    ax = _new_axes(ax)
    known = images.dropna(subset=[column, by] if by else [column])
    look = {"color": PALETTE[0]}
    if by:
        look = {"hue": by, "palette": "colorblind", "element": "step", "fill": False}
        look |= {"stat": "proportion", "common_norm": False}
    if binwidth:  # around the values, because of bins between them the last would hold both of its edges
        look["bins"] = np.arange(known[column].min() - binwidth / 2, known[column].max() + binwidth, binwidth)
    sns.histplot(known, x=column, **look, ax=ax)
    if by:
        for line, handle, style in zip(ax.lines, reversed(ax.get_legend().legend_handles), cycle(_LINES), strict=False):
            plt.setp([line, handle], linestyle=style)
    ax.set(xlabel=xlabel or column, ylabel="share of the images" if by else "images", title=title)
    return ax


def plot_boxes(images, column, value, by=None, order=None, ylabel=None, title="", ax=None):
    """Draw the distribution of the column ``value`` for each value of ``column`` as boxes: quartiles, median, outliers.

    The column ``by`` divides each box into boxes of several colours. Missing values are left out.
    """
    ax = _new_axes(ax, width=max(7, 1.1 * images[column].nunique()))
    look = {"hue": by, "palette": "colorblind"} if by else {}
    sns.boxplot(images, x=column, y=value, order=order, **look, fliersize=2, ax=ax)
    _name_ticks(ax, [name.get_text() for name in ax.get_xticklabels()])
    if by:
        sns.move_legend(ax, **_OUTSIDE)
    ax.set(xlabel="class" if column == "label" else column, ylabel=ylabel or value, title=title)
    return ax


def plot_distances(distances, title="Distance from the training images", ax=None):
    """Draw the distances of each kind of images as boxes, on a logarithmic scale; beyond the line images are foreign.

    ``distances`` is a table ``kind, distance``, in which 1 is the limit; the kind that comes first is known.
    """
    kinds = list(distances["kind"].unique())
    ax = _new_axes(ax, height=1.4 + 0.32 * len(kinds))
    sns.boxplot(
        distances, x="distance", y="kind", order=kinds, color=PALETTE[0], fliersize=2, log_scale=(True, False), ax=ax
    )
    ax.patches[0].set_facecolor(PALETTE[1])
    ax.axvline(1, color="black", ls="--", lw=1.2)
    ax.set(xlabel="distance; 1 is the limit", ylabel="", title=title)
    return ax


def plot_image_sizes(sizes, by=None, ax=None):
    """Draw width and height of the images in pixels, the size of a point for their number.

    ``sizes`` has a row ``width, height`` for each image. The column ``by`` gives the points colour and marker.
    """
    ax = _new_axes(ax, width=5.5)
    for (name, part), color, marker, _ in _style(sizes.groupby(by) if by else [(None, sizes)]):
        counts = part.value_counts(["width", "height"], sort=False).reset_index(name="images")
        area = 20 + 310 * counts["images"] / len(sizes)
        ax.scatter(counts["width"], counts["height"], area, color=color, marker=marker, alpha=0.5, label=name)
    counts = sizes.value_counts(["width", "height"], sort=False).reset_index(name="images")
    for row in counts[counts["images"] >= 0.05 * len(sizes)].nlargest(5, "images").itertuples():
        text = f"{row.width:.0f} × {row.height:.0f}: {row.images:,}"
        ax.annotate(text, (row.width, row.height), (0, 14), textcoords="offset points", fontsize=8, ha="center")
    ax.set(xlabel="width in pixels", ylabel="height in pixels", title="Image sizes")
    ax.set(xlim=(0, 1.15 * sizes["width"].max()), ylim=(0, 1.15 * sizes["height"].max()))
    if by:
        ax.legend(fontsize=8, loc="upper left")
    return ax


def plot_mean_colors(images, class_names, ax=None):
    """Draw the mean colour of each class, and how far its images lie from it.

    ``images`` is a DataFrame ``label, red, green, blue``, the colours from 0 to 255.
    """
    many = len(class_names) > _MANY_CLASSES
    wide = 0.3 if many else max(0.9, _LETTER * _find_longest(class_names))
    ax = _new_axes(ax, width=max(6, wide * len(class_names)))
    grouped = images.groupby("label")[["red", "green", "blue"]]
    mean, std = grouped.mean().reindex(class_names), grouped.std().reindex(class_names)
    places = np.arange(len(class_names))
    for channel, shift, marker, color in zip(mean, (-0.2, 0, 0.2), "os^", (3, 2, 0), strict=True):
        look = {"fmt": marker, "color": PALETTE[color], "capsize": 2, "ms": 5, "label": channel}
        ax.errorbar(places + shift, mean[channel], std[channel], **look)
    top = float((mean + std.fillna(0)).max().max()) * 1.06
    for place, rgb in zip(places, mean.to_numpy(), strict=True):
        if not np.isnan(rgb).any():  # a class without images
            ax.add_patch(plt.Rectangle((place - 0.4, top), 0.8, 0.1 * top, fc=rgb / 255, ec="black"))
    if many:
        ax.set_xticks(places, class_names, rotation=90, fontsize=8)
    else:
        _name_ticks(ax, class_names)
    ax.set(xlabel="class", ylabel="mean level, 0 to 255", xlim=(-0.5, len(class_names) - 0.5), ylim=(0, 1.14 * top))
    ax.set_title("Mean colour (patches), mean ± standard deviation")
    ax.legend(fontsize=8, loc="lower right", ncol=3)
    return ax


def plot_image_grid(images, titles=None, columns=10, row_labels=None, size=0.95, title=None):
    """Draw an array of images in a grid row by row, each image ``size`` inches wide.

    ``titles`` stand above the images, ``row_labels`` at the left of the rows.
    """
    images = np.clip(np.asarray(images), 0, 255).astype("uint8")
    if not len(images):
        return plt.figure(figsize=(2, 0.3))
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    side = size * images.shape[1] / images.shape[2]
    lines = max((text.count("\n") + 1 for text in titles), default=0) if titles is not None else 0
    gap = 0.06 + 0.16 * lines  # between rows, in inches
    height = rows * (side + gap)
    # Placed by hand, because constrained layout takes seconds for a hundred Axes.
    figure, axes = plt.subplots(rows, columns, figsize=(columns * size * 1.06, height), squeeze=False, layout="none")
    figure.subplots_adjust(left=0, right=1, bottom=0, top=1 - gap / height, wspace=0.06, hspace=gap / side)
    for number, ax in enumerate(axes.flat):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        if number < len(images):
            ax.imshow(images[number].squeeze(), cmap="gray", vmin=0, vmax=255)
            if titles is not None:
                ax.set_title(titles[number], fontsize=8, pad=2)
    for ax, text in zip(axes[:, 0], row_labels or [], strict=False):
        ax.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=9)
    if title:
        figure.suptitle(title, fontsize="medium", y=1, va="bottom")
    return figure


def plot_learning_curves(histories, watched="validation"):
    """Draw accuracy and loss over the epochs, training beside validation, for one model or several.

    ``histories`` has for the name of each model its history from `helpers.training.fit.fit_model`. Where
    ``attrs["best_epoch"]`` is set, a marker shows the epoch whose weights were kept. ``watched`` is what the legend
    calls the images that were not trained on.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8))
    for ax, quantity in zip(axes, ("accuracy", "loss"), strict=True):
        for (name, history), color, marker, _ in _style(histories.items()):
            prefix = f"{name}, " if len(histories) > 1 else ""
            ax.plot(history.index, history[quantity], color=color, ls="--", label=f"{prefix}training")
            ax.plot(history.index, history[f"val_{quantity}"], color=color, label=f"{prefix}{watched}")
            if best := history.attrs.get("best_epoch"):
                ax.plot(best, history[f"val_{quantity}"][best], marker, color=color, label=f"{prefix}kept epoch")
        ax.set(xlabel="epoch", ylabel=quantity, title=quantity.capitalize())
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].yaxis.set_major_formatter(_PERCENT)
    axes[1].set(yscale="log", ylabel="loss (log scale)")
    low, high = axes[1].get_ylim()
    axes[1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 20 * low else MaxNLocator(5, steps=_STEPS))
    axes[1].yaxis.set_major_formatter("{x:g}")
    axes[1].minorticks_off()
    ax, place = (axes[1], _BESIDE) if len(histories) > 2 else (axes[0], {})
    ax.legend(*axes[0].get_legend_handles_labels(), fontsize=8, **place)
    return figure


def plot_confusion_matrix(predictions, class_names, normalize=False, title="Confusion matrix", ax=None):
    """Draw the confusion matrix of a table ``y_true, y_pred``: true classes in rows, predicted ones in columns.

    With ``normalize`` each row is divided by its sum, which puts the sensitivity of each class on the diagonal. With
    many classes cells and letters are smaller, so that 38 classes can be read on a printed page.
    """
    count, names = len(class_names), [str(name) for name in class_names]
    many = count > _MANY_CLASSES
    true, predicted = (encode_labels(predictions[column], names) for column in ("y_true", "y_pred"))
    matrix = np.bincount(true * count + predicted, minlength=count**2).reshape(count, -1)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    shown = np.char.mod("%.0f" if many else "%.1f", shares * 100) if normalize else matrix.astype(str)
    side = 0.17 * count + 2.6 if many else max(4.2, 0.52 * count + 1)
    ax = _new_axes(ax, width=side if many else side + 0.8, height=side)
    labels = names if many else [_wrap(name, 14) for name in names]
    look = {"cmap": "Blues", "vmin": 0, "vmax": 1, "cbar": False, "square": True}
    look |= {"linewidths": 0.5, "linecolor": "lightgrey", "xticklabels": labels, "yticklabels": labels}
    look |= {"annot": np.where(matrix == 0, "", shown), "fmt": "", "annot_kws": {"fontsize": 6 if many else 8}}
    # Colour shows the square root of the share of the row, so that rare errors are seen beside a full diagonal.
    sns.heatmap(np.sqrt(shares), **look, ax=ax)
    ax.tick_params(axis="y", rotation=0)
    if many or max(map(len, names)) > _LONG_WORD:
        ax.tick_params(axis="x", rotation=90)
        ax.tick_params(labelsize=7 if many else 9, pad=1)
    unit = "% of the true class" if normalize else "images"
    ax.set(xlabel="predicted class", ylabel="true class", title=f"{title} ({unit})")
    return ax


def plot_metrics(metrics, metric="accuracy", ax=None):
    """Draw one metric of several models and test sets as points with 95 % intervals.

    ``metrics`` has for each model and each of its test sets a table of `helpers.evaluation.scores.compute_metrics`.
    """
    names = list(next(iter(metrics.values())))
    ax = _new_axes(ax, height=1.2 + (0.2 + 0.15 * len(metrics)) * len(names))
    step = min(0.28, 0.8 / len(metrics))  # between the models of one test set
    for number, ((model, test_sets), color, marker, _) in enumerate(_style(metrics.items())):
        rows = pd.DataFrame([table.loc[metric] for table in test_sets.values()])
        heights = np.arange(len(rows)) + step * (number - (len(metrics) - 1) / 2)
        ax.hlines(heights, rows["low"], rows["high"], color=color)
        ax.plot(rows["value"], heights, marker, color=color, label=model)
    ax.set(yticks=range(len(names)), yticklabels=[name.replace("_", " ") for name in names])
    ax.set_xlabel(f"{metric.replace('_', ' ')} with 95 % interval")
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=_STEPS))
    ax.xaxis.set_major_formatter(_PERCENT)
    ax.invert_yaxis()
    ax.legend(fontsize=8, **(_BESIDE if len(metrics) > 3 else {}))
    return ax


def plot_robustness(curves, xlabel, limit=None, ax=None):
    """Draw the table of `helpers.evaluation.robustness.compute_robustness`, a line with a 95 % band for each model.

    ``xlabel`` says what the strength is, with its unit; a dotted line marks ``limit``, such as the largest in training.
    """
    ax = _new_axes(ax)
    for (name, curve), color, marker, line in _style(curves.groupby("model", sort=False)):
        ax.plot(curve["strength"], curve["value"], ls=line, marker=marker, ms=5, color=color, label=name)
        ax.fill_between(curve["strength"], curve["low"], curve["high"], color=color, alpha=0.2, lw=0)
    if limit is not None:
        ax.axvline(limit, ls=":", color="grey")
    ax.set(xlabel=xlabel, ylabel="accuracy", ylim=(0, 1.03))
    ax.yaxis.set_major_formatter(_PERCENT)
    ax.legend(fontsize=8, loc="lower left")
    return ax


def plot_corruptions(curves, chance=0, ax=None):
    """Draw the curves of `helpers.evaluation.robustness.score_corruptions`: thin for each corruption, thick their mean.

    The two corruptions that do most harm are named at the right; a dotted line marks ``chance``.
    """
    ax = _new_axes(ax, width=8.5)
    for (name, part), color, marker, line in _style(curves.groupby("model", sort=False)):
        wide = part.pivot_table("value", "severity", "corruption")
        ax.plot(wide, color=color, lw=0.7, alpha=0.4)
        mean, label = wide.mean(axis=1), f"{name}, mean of {wide.shape[1]}"
        ax.plot(mean, color=color, ls=line, marker=marker, lw=2.5, label=label)
        ends = wide[wide.mean().nsmallest(2).index].iloc[-1]
        if np.ptp(ends) < _TEXT_HEIGHT:  # side by side their names would overlap
            ends = pd.Series({"\n".join(ends.index): ends.mean()})
        for names, height in ends.items():
            place = (wide.index[-1] + 0.08, height)
            ax.annotate(names, place, fontsize=8, color=color, va="center", annotation_clip=False)
    ax.axhline(chance, ls=":", color="grey", label="guessing")
    ax.set(xlabel="severity; 0: unaltered", ylabel="balanced accuracy", ylim=(0, 1.03), xlim=(0, 6.2), xticks=range(6))
    ax.yaxis.set_major_formatter(_PERCENT)
    ax.legend(fontsize=8, loc="lower left")
    return ax


def plot_shortcuts(table, reached, ax=None):
    """Draw how far shortcuts come, and below each what is left of a model's score when it is balanced away.

    ``table`` has the columns ``shortcut, value, low, high`` and ``left_value, left_low, left_high``; ``reached``, the
    score of the model, is a dotted line. What rests on too few groups for an interval is hollow.
    """
    ax = _new_axes(ax, width=9, height=1.4 + 0.45 * len(table))
    places = np.arange(len(table))
    kinds = (
        ("", -0.15, PALETTE[0], "o", "shortcut"),
        ("left_", 0.15, PALETTE[1], "s", "model, shortcut balanced away"),
    )
    for prefix, shift, color, marker, label in kinds:
        low, high, value = (table[f"{prefix}{name}"].to_numpy("float64") for name in ("low", "high", "value"))
        ax.hlines(places + shift, low, high, color=color)
        for known, fill in ((~np.isnan(low), color), (np.isnan(low), "none")):
            ax.plot(value[known], places[known] + shift, marker, color=color, mfc=fill)
        ax.plot([], [], marker, color=color, label=label)
    ax.axvline(reached, ls=":", color="grey", label="model")
    ax.set(yticks=places, yticklabels=table["shortcut"], ylim=(len(table) - 0.5, -0.5))
    ax.set_xlabel("ROC AUC with 95 % interval; hollow: too few groups for one")
    ax.legend(fontsize=8, **_OUTSIDE)
    return ax


def plot_choice(table, ax=None):
    """Draw the table of `helpers.evaluation.choosing.check_rule`: how often each model is chosen, how often best."""
    ax = _new_axes(ax, height=1.4 + 0.45 * len(table))
    places = np.arange(len(table))
    for shift, column, color in ((-0.2, "chosen", PALETTE[0]), (0.2, "best", PALETTE[1])):
        label = "chosen on one half" if column == "chosen" else "best on the other half"
        look = {"color": color, "hatch": "//" if shift > 0 else "", "ec": "white"}
        ax.barh(places + shift, table[column], 0.36, label=label, **look)
    ax.set(yticks=places, yticklabels=table.index, xlabel="share of the divisions", ylim=(len(table) - 0.4, -0.6))
    ax.xaxis.set_major_formatter(_PERCENT)
    ax.grid(False, axis="y")
    ax.legend(fontsize=8, **_OUTSIDE)
    return ax


def plot_calibration(calibration, title="Calibration", ax=None):
    """Draw the table of `helpers.evaluation.calibration.compute_calibration`: accuracy over confidence.

    A calibrated model lies on the diagonal. Bars are 95 % intervals; those of bins with few images are long.
    """
    ax = _new_axes(ax, width=4.6)
    ax.plot([0, 1], [0, 1], ls="--", color="grey", label="calibrated")
    accuracy = calibration["accuracy"].to_numpy()
    spread = np.abs(calibration[["low", "high"]].T.to_numpy() - accuracy)
    ax.errorbar(calibration["confidence"], accuracy, spread, fmt="o-", ms=5, lw=1, capsize=2, label="model")
    ax.set(xlabel="mean confidence", ylabel="accuracy", xlim=(0, 1.03), ylim=(0, 1.03), title=title)
    ax.legend(fontsize=8)
    return ax


def plot_abstaining(curves, ax=None):
    """Draw the accuracy over the share of images that are answered, a line with a 95 % band for each model.

    ``curves`` has for the name of each model the table of `helpers.evaluation.calibration.compute_abstaining`.
    """
    ax = _new_axes(ax, width=5.6)
    for (name, curve), color, marker, line in _style(curves.items()):
        ax.plot(curve["answered"], curve["accuracy"], ls=line, marker=marker, ms=4, color=color, label=name)
        ax.fill_between(curve["answered"], curve["low"], curve["high"], color=color, alpha=0.2, lw=0)
    ax.set(xlabel="share of the images that are answered", ylabel="accuracy of these", title="Abstaining")
    ax.set_xlim(0, 1.03)
    ax.xaxis.set_major_formatter(_PERCENT)
    ax.yaxis.set_major_formatter(_PERCENT)
    ax.legend(fontsize=8, loc="lower left")
    return ax


def plot_roc(roc, points=None, title="ROC curves, one class against the rest", ax=None):
    """Draw the curves of `helpers.evaluation.scores.compute_roc`.

    ``points`` are operating points to mark: a dict of names to pairs of specificity and sensitivity.
    """
    ax = _new_axes(ax, width=5.6, height=5)
    for (name, curve), color, _, line in _style(roc.groupby("class", sort=False)):
        label = f"{name}: ROC AUC {curve['roc_auc'].iloc[0]:.3f}"
        ax.plot(curve["false_positive_rate"], curve["true_positive_rate"], ls=line, color=color, label=label)
    for (name, (specificity, sensitivity)), marker in zip((points or {}).items(), cycle(_MARKERS), strict=False):
        ax.plot(1 - specificity, sensitivity, marker, color="black", ms=7, label=name)
    ax.plot([0, 1], [0, 1], ls=":", color="grey", lw=1)
    ax.set(xlabel="1 − specificity", ylabel="sensitivity", title=title, aspect="equal")
    ax.legend(fontsize=8, loc="lower right", handlelength=4)  # long enough to tell the lines
    return ax


def plot_precision_recall(curves, title="Precision-recall curves, one class against the rest", ax=None):
    """Draw the curves of `helpers.evaluation.scores.compute_precision_recall`."""
    ax = _new_axes(ax, width=5.6, height=5)
    for (name, curve), color, _, line in _style(curves.groupby("class", sort=False)):
        label = f"{name} ({curve['average_precision'].iloc[0]:.2f} / {curve['prevalence'].iloc[0]:.2f})"
        ax.plot(curve["recall"], curve["precision"], ls=line, color=color, label=label, drawstyle="steps-post")
    ax.set(xlabel="recall (sensitivity)", ylabel="precision", title=title, aspect="equal", ylim=(0, 1.03))
    ax.legend(title="class (average precision / chance)", fontsize=8, **_OUTSIDE)
    return ax


def plot_net_benefit(net_benefits, title="Decision curve", ax=None):
    """Draw decision curves: net benefit over the threshold, beside treating everybody and nobody.

    ``net_benefits`` has for the name of each model the table of `helpers.evaluation.thresholds.compute_net_benefit`.
    """
    ax = _new_axes(ax, width=5.6)
    for (name, curve), color, _, line in _style(net_benefits.items()):
        ax.plot(curve["threshold"], curve["model"], ls=line, color=color, label=name)
    ax.plot(curve["threshold"], curve["all"], color="grey", lw=1, label="alarm for all")
    ax.axhline(0, color="black", lw=1, ls=":", label="alarm for none")
    top = max(0.05, *(curve[["model", "all"]].to_numpy().max() for curve in net_benefits.values()))
    ax.set(xlabel="threshold on the probability", ylabel="net benefit per image", title=title)
    ax.set_ylim(-0.15 * top, 1.1 * top)
    ax.legend(fontsize=8, loc="lower left")
    return ax


def plot_intervals(table, column, xlabel, reference=None, title="", ax=None):
    """Draw ``value, low, high`` of each row of a table, whose name stands in ``column``.

    The column ``reference`` has values to compare with, drawn as vertical marks.
    """
    ax = _new_axes(ax, height=1.4 + 0.32 * len(table))
    places = np.arange(len(table))
    ax.hlines(places, table["low"], table["high"], color=PALETTE[0])
    ax.plot(table["value"], places, "o", color=PALETTE[0], label=xlabel.partition(" with")[0])
    if reference:
        ax.plot(table[reference], places, "|", color=PALETTE[1], ms=12, mew=2, label=reference.replace("_", " "))
        ax.legend(fontsize=8, **_OUTSIDE)
    ax.set(yticks=places, yticklabels=table[column], xlabel=xlabel, title=title, ylim=(len(table) - 0.5, -0.5))
    return ax


def plot_effects(table, metrics=("validation_accuracy", "test_accuracy")):
    """Draw metrics over the levels of each factor, one panel per factor: a point per seed, and a line of the means.

    ``table`` has a row per factor, level and seed, in the order to draw: ``factor, level`` and the metrics; missing
    values are left out. What the names of the metrics have in common is the label of the y axis.
    """
    factors = list(table.groupby("factor", sort=False))
    columns = min(3, len(factors))
    rows = -(-len(factors) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.4 * columns, 3 * rows + 0.4), sharey=True, squeeze=False)
    common = [word for word in metrics[0].split("_") if all(word in metric.split("_") for metric in metrics)]
    for ax, (factor, part) in zip(axes.flat, factors, strict=False):
        levels = list(part["level"].unique())
        for number, (metric, color, marker, line) in enumerate(_style(metrics)):
            # Beside one another, so that neither metrics nor means hide anything.
            shift, side = 0.14 * (number - (len(metrics) - 1) / 2), -1 if number < len(metrics) / 2 else 1
            places = part["level"].map(levels.index) + (shift + 0.1 * side)
            ax.plot(places, part[metric], marker, color=color, ms=4.5, alpha=0.45, mew=0)
            label = " ".join(word for word in metric.split("_") if word not in common) or metric.replace("_", " ")
            means = part.groupby("level", sort=False)[metric].mean().to_numpy()
            ax.plot(np.arange(len(levels)) + shift, means, marker, ls=line, color=color, ms=6, label=label)
        names = [_wrap(level, max(6, 40 // len(levels))) for level in levels]
        ax.set(xticks=range(len(levels)), xlim=(-0.5, len(levels) - 0.5), title=factor[:1].upper() + factor[1:])
        ax.set_xticklabels(names, fontsize=8)
        ax.grid(False, axis="x")
    for ax in axes.flat[len(factors) :]:
        ax.set_axis_off()
    plt.setp(axes[:, 0], ylabel=" ".join(common).replace("roc auc", "ROC AUC"))
    if common[-1:] != ["auc"]:
        axes[0, 0].yaxis.set_major_formatter(_PERCENT)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncol=len(metrics), fontsize=8)
    return figure


def plot_embedding(points, labels, title="", legend_title=None, ax=None):
    """Draw points, an array (n, 2) such as from `helpers.evaluation.clusters.embed`, colour and marker for their label.

    The legend has the n labels in sorted order, those of a Categorical in the order of its categories. About 12 can be
    distinguished at a glance. Points without a label are left out.
    """
    points, labels = np.asarray(points), pd.Series(labels).reset_index(drop=True)
    if points.shape != (len(labels), 2):
        raise ValueError(f"Points of shape {points.shape} do not belong to {len(labels)} labels.")
    ax = _new_axes(ax, width=7.5, height=5.2)
    area = float(np.clip(20_000 / max(1, len(points)), 12, 40))
    parts = labels.groupby(labels, observed=True)
    for (name, part), color, marker, _ in _style(parts):
        look = {"color": color, "marker": marker, "alpha": 0.65, "lw": 0, "label": str(name)}
        look["zorder"] = 2 + 0.5 * (1 - len(part) / len(labels))  # the rare above the frequent, which would hide them
        ax.scatter(*points[part.index].T, area, **look)
    ax.set(xlabel="first dimension", ylabel="second dimension", title=title, xticks=[], yticks=[])
    ax.set_aspect("equal", adjustable="datalim")
    columns = max(1, -(-len(parts) // _LEGEND_ROWS))
    legend = ax.legend(title=legend_title, fontsize=8, **_OUTSIDE, ncols=columns)
    plt.setp(legend.legend_handles, alpha=1, sizes=[36])
    return ax


def plot_clusterings(table, group_name="subject", axes=None):
    """Draw the table of `helpers.evaluation.clusters.compare_clusterings` into two Axes, a line for each method.

    Agreement with the class has solid lines and full markers, with the group dashed lines and empty markers.
    """
    axes = plt.subplots(1, 2, figsize=(10, 3.8))[1] if axes is None else axes
    for (method, part), color, marker, _ in _style(table.groupby("method", sort=False)):
        part = part.sort_values("clusters")
        look, dashed = {"color": color, "marker": marker}, {"ls": "--", "mfc": "white"}
        axes[0].plot(part["clusters"], part["silhouette"], **look, label=method)
        axes[1].plot(part["clusters"], part["agreement_class"], **look, label=f"{method}, class")
        axes[1].plot(part["clusters"], part["agreement_group"], **look, **dashed, label=f"{method}, {group_name}")
    axes[0].set(ylabel="silhouette", title="Silhouette")
    axes[1].set(ylabel="adjusted Rand index", title="Agreement")
    axes[1].axhline(0, color="grey", lw=1, ls=":")
    for ax in axes:
        ax.set_xlabel("number of clusters")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].legend(fontsize=8)
    axes[1].legend(fontsize=8, **_BESIDE)
    return axes[0].figure


def overlay_heatmaps(images, heatmaps, strength=0.45):
    """Lay heatmaps over images, as uint8 array (n, height, width, 3) to be drawn with `plot_image_grid`.

    ``heatmaps`` is an array (n, height, width) from 0 to 1, such as from `helpers.evaluation.explain.compute_grad_cam`;
    ``strength`` is its share.
    """
    images = np.broadcast_to(np.asarray(images, "float32"), (*images.shape[:3], 3))
    colors = 255 * plt.get_cmap("viridis")(heatmaps)[..., :3]
    return ((1 - strength) * images + strength * colors).astype("uint8")


def plot_layers(layers, ax=None):
    """Draw the table of `helpers.training.networks.describe_layers` as a row of boxes.

    The height of a box shows the side of the images, its width the number of channels.
    """
    ax = _new_axes(ax, width=10, height=3.6)
    kinds = [*_LAYERS, *sorted(set(layers["kind"]) - set(_LAYERS))]
    colors = dict(zip(kinds, cycle(PALETTE), strict=False))  # the same ones in every figure
    x, shape = 0.0, None
    for row, new in zip(layers.itertuples(), ~layers["kind"].duplicated(), strict=True):
        is_map = len(row.output_shape) == 3
        side = row.output_shape[0] if is_map else 1.5 * np.log2(row.output_shape[0] + 1)
        width = 0.35 + 0.25 * np.log2(row.output_shape[-1]) if is_map else 0.5
        look = {"color": colors[row.kind], "edgecolor": "black", "lw": 0.6, "label": row.kind if new else None}
        ax.bar(x, side, width, bottom=-side / 2, align="edge", **look)
        if row.output_shape != shape:
            shape, look = row.output_shape, {"rotation": 90, "va": "top", "ha": "center", "fontsize": 7}
            ax.text(x + width / 2, -side / 2 - 0.5, "×".join(map(str, shape)), **look)
        x += width + 0.35
    top = max(bar.get_height() for bar in ax.patches)
    ax.set(xlim=(-0.5, x), ylim=(-0.5 * top - 9, 0.5 * top + 1))
    ax.set_axis_off()
    ax.legend(ncol=4, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.18), frameon=False)
    return ax


def _wrap(name, letters):
    """Break a name between words into lines of so many letters."""
    return textwrap.fill(str(name), letters, break_long_words=False)


def _find_longest(names):
    """Find how many letters the longest word of some names has."""
    return max((len(word) for name in names for word in str(name).split()), default=0)


def _name_ticks(ax, names):
    """Write names below the places 0, 1, 2, … of the x axis, with a line for each word where they are long."""
    ax.set_xticks(range(len(names)), [_wrap(name, 11) for name in names])
    if _find_longest(names) > _LONG_WORD:
        ax.tick_params(axis="x", labelsize=8)


def _style(items):
    """Give each item a colour, a marker and a line."""
    return zip(items, cycle(_COLORS), cycle(_MARKERS), cycle(_LINES), strict=False)


def _new_axes(ax, width=7.0, height=4.2):
    """Make Axes of this size in inches, if there are none yet."""
    return plt.subplots(figsize=(width, height))[1] if ax is None else ax
