"""Plots: data in, Axes out.

Every function takes data and an optional ``ax`` and returns the Axes; those that draw several panels return the Figure.
None writes a file or computes a metric. Figures are as large as they are printed: 85 mm wide, or 174 mm for several
panels or many classes. Colours are those of seaborn's palette for colour-blind readers, and where they carry a meaning,
markers, line styles or hatches carry it too. A model looks the same in all figures. ``images`` is a DataFrame with a
row for each image, or an array (n, height, width, channels) of their pixels from 0 to 255.
"""

from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from helpers.evaluation.drawing import redrawable
from helpers.evaluation.layout import (
    COLUMN,
    LINE,
    MM,
    MODELS,
    PAGE,
    PALETTE,
    count_lines,
    finish,
    fit,
    get_width,
    measure,
    name_metric,
    name_places,
    new_axes,
    place_common_legend,
    place_legend,
    readable,
    style,
    style_models,
    wrap,
)
from helpers.evaluation.scores import encode_labels

_MANY_CLASSES = 12  # above it a figure is as wide as the page
_ROW, _NAMES, _HIGH = 5.2, 38, 2.6  # millimetres: height of a row, width of long names at its left, height of a number
# Kinds of layers by family: a colour for each family, and a hatch for each of its kinds.
_LAYERS = (
    ("Dense",),
    ("Conv2D", "DepthwiseConv2D"),
    ("BatchNormalization",),
    ("ReLU", "Activation"),
    ("MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D"),
    ("Normalization", "Rescaling"),
    ("Add", "Concatenate"),
    ("Dropout",),
    ("ZeroPadding2D", "Cropping2D"),
    ("Flatten",),
)
_HATCHES = ("", "/////", "xxxxx", "-----", "+++++", "\\\\\\\\\\")
_STEPS = (1, 2, 5, 10)  # between ticks
_PERCENT = FuncFormatter(lambda share, _: f"{100 * share:.6g}%")  # with as many decimals as a tick needs
_LOOK = {
    "figure.figsize": (COLUMN * MM, 60 * MM),
    "figure.dpi": 160,  # on the screen: about 540 pixels for a column
    "savefig.dpi": 300,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.02,
    "figure.constrained_layout.h_pad": 0.02,
    "figure.constrained_layout.wspace": 0.03,
    "figure.max_open_warning": 0,
    "font.size": 7,
    "figure.titlesize": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "axes.titlepad": 4,
    "axes.labelpad": 2,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.5,
    "grid.alpha": 0.5,
    "lines.linewidth": 1,
    "lines.markersize": 3.5,
    "lines.markeredgewidth": 0.8,
    "patch.linewidth": 0.5,
    "hatch.linewidth": 0.5,
    "errorbar.capsize": 1.5,
    "xtick.major.pad": 2,
    "ytick.major.pad": 2,
    "legend.frameon": False,
    "legend.borderaxespad": 0.3,
    "legend.borderpad": 0.2,
    "legend.labelspacing": 0.3,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.2,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "figures",
}


def set_style():
    """Set the look of all figures that follow: drawn as large as they are printed, with type of 7 and 8 points.

    Fonts are embedded as Type 42, as publishers ask for. In an SVG letters are outlines, because a reader's machine may
    lack the font; the PDF has text that can be searched. A fixed salt makes each SVG the same at every run.
    """
    sns.set_theme(context="paper", style="whitegrid", palette=PALETTE, font="DejaVu Sans")  # shipped with Matplotlib
    plt.rcParams.update(_LOOK)
    MODELS.clear()


@redrawable()
def make_panels(rows, columns, width=PAGE, height=None, sharex=False, sharey=False, count=None):
    """Make a figure of several panels, each to be drawn by one function of this module.

    Parameters
    ----------
    rows, columns : int
    width, height : float
        In millimetres, as printed: 85 is a column of a page, 174 both; by default each row is 58 high.
    sharex, sharey : bool
        Whether panels share an axis, whose label and numbers are then written once.
    count : int, optional
        Of the panels that are needed; the others are left out.

    Returns
    -------
    Figure, and an array of its Axes, row by row
    """
    figure, axes = _make_grid(rows, columns, width, height, sharex=sharex, sharey=sharey)
    for place, ax in enumerate(axes[:count]):
        if sharex and count and place + columns >= count:  # nothing is below it
            ax.tick_params(labelbottom=True)
    for ax in axes[count or len(axes) :]:
        ax.remove()
    return figure, axes[:count]


@redrawable("column", "by")
def plot_counts(
    images, column="label", order=None, by=None, horizontal=False, title="Images per class", ylabel="images", ax=None
):
    """Draw how many images there are of each value of a column.

    The column ``by`` divides each bar into bars of several colours. Without an ``order`` of the values, bars are sorted
    by value; horizontal ones, which suit many or long names, by size. ``ylabel`` says what is counted.
    """
    counts = images[column].value_counts()
    order = list((counts if horizontal else counts.sort_index()).index if order is None else order)
    parts = images[by].nunique() if by else 1
    height = 16 + (4.2 if parts == 1 else 4.8) * len(order) if horizontal else 60
    ax, alone = new_axes(ax, height), ax is None
    look = {"hue": by, "palette": "colorblind"} if by else {"color": PALETTE[0]}
    long = "y" if horizontal else "x"
    sns.countplot(images, **{long: column}, order=order, **look, saturation=1, lw=0, ax=ax)
    room = (ax.figure.get_figheight() / MM - 16 if horizontal else get_width(ax) - 14) / max(1, len(order))
    names = [readable(name) for name in order]
    name_places(getattr(ax, f"{long}axis"), names, 48 if horizontal else room, alone and not horizontal)
    _write_counts(ax, room, parts, horizontal)
    ax.grid(False, axis=long)
    name = "class" if column == "label" else column
    finish(ax, *((ylabel, name) if horizontal else (name, ylabel)), title)
    if by:
        _move_legend(ax, grow=alone)
    return ax


def _write_counts(ax, room, parts, horizontal):
    """Write numbers at the ends of bars, upright where they are wider than the room, or nowhere."""
    width = measure([f"{max(bar.get_height(), bar.get_width()):.0f}" for bars in ax.containers for bar in bars]) + 0.5
    upright = not horizontal and (parts > 1 or width > room)
    if (_HIGH if upright or horizontal else 0) <= 0.8 * room / parts:
        for bars in ax.containers:
            ax.bar_label(bars, fontsize=7, padding=2, rotation=90 if upright else 0)
        along = get_width(ax) - 30 if horizontal else ax.figure.get_figheight() / MM - 35
        ax.margins(**{"x" if horizontal else "y": min(0.35, (width if upright or horizontal else LINE) / along + 0.05)})


@redrawable("column", "by")
def plot_distribution(images, column, by=None, binwidth=None, xlabel=None, title="", legend=True, ax=None):
    """Draw the distribution of a number, of all images or side by side for the values of the column ``by``.

    The shares of each part sum to 1, so that parts of different size compare. Missing values are left out. ``legend``
    tells whether there is one: of several panels one needs it.
    """
    ax, alone = new_axes(ax), ax is None
    known = images.dropna(subset=[column, by] if by else [column])
    look = {"color": PALETTE[0], "lw": 0.4}
    if by:
        look = {"hue": by, "palette": "colorblind", "element": "step", "fill": False}
        look |= {"stat": "proportion", "common_norm": False}
    if binwidth:  # around the values, because of bins between them the last would hold both of its edges
        look["bins"] = np.arange(known[column].min() - binwidth / 2, known[column].max() + binwidth, binwidth)
    sns.histplot(known, x=column, **look, ax=ax)
    finish(ax, xlabel or column, "share of the images" if by else "images", title)
    if by:
        looks = list(style(reversed(ax.get_legend().legend_handles)))
        for line, (handle, *_, dashes) in zip(ax.lines, looks, strict=False):
            plt.setp([line, handle], linestyle=dashes)
            line.sticky_edges.y.append(0)
            ax.update_datalim([(line.get_xdata()[0], 0)])  # from 0 on, as bars are
        ax.autoscale_view()
        _move_legend(ax, alone, legend)
    else:
        ax.yaxis.get_major_locator().set_params(integer=True)
    return ax


@redrawable("column", "value", "by")
def plot_boxes(images, column, value, by=None, order=None, ylabel=None, title="", xlabel=None, legend=True, ax=None):
    """Draw the distribution of the column ``value`` for each value of ``column`` as boxes: quartiles, median, outliers.

    The column ``by`` divides each box into boxes of several colours. Missing values are left out. ``legend`` tells
    whether there is one: of several panels one needs it.
    """
    ax, alone = new_axes(ax), ax is None
    look = {"hue": by, "palette": "colorblind"} if by else {"color": PALETTE[0]}
    sns.boxplot(images, x=column, y=value, order=order, **look, saturation=1, fliersize=1, linewidth=0.6, ax=ax)
    names = [readable(name.get_text()) for name in ax.get_xticklabels()]
    name_places(ax.xaxis, names, (get_width(ax) - 14) / max(1, len(names)), alone)
    finish(ax, xlabel or ("class" if column == "label" else column), ylabel or value, title)
    if by:
        _move_legend(ax, alone, legend)
    return ax


@redrawable("kind", "distance")
def plot_distances(distances, title="Distance from the training images", ax=None):
    """Draw the distances of each kind of images as boxes, on a logarithmic scale; beyond the line images are foreign.

    ``distances`` is a table ``kind, distance``, in which 1 is the limit; the kind that comes first is known.
    """
    kinds = list(distances["kind"].unique())
    ax = new_axes(ax, 20 + _ROW * len(kinds))
    look = {"color": PALETTE[0], "saturation": 1, "fliersize": 1, "linewidth": 0.6, "log_scale": (True, False)}
    sns.boxplot(distances, x="distance", y="kind", order=kinds, **look, ax=ax)
    ax.patches[0].set_facecolor(PALETTE[1])
    ax.axvline(1, color="black", ls="--")
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    name_places(ax.yaxis, [readable(kind) for kind in kinds], 40)
    finish(ax, "distance; 1 is the limit", title=title)
    return ax


@redrawable("width", "height", "by")
def plot_image_sizes(sizes, by=None, ax=None):
    """Draw width and height of the images in pixels, the size of a point for their number.

    ``sizes`` has a row ``width, height`` for each image. The column ``by`` gives the points colour and marker.
    """
    ax, alone = new_axes(ax, 66), ax is None
    for (name, part), color, marker, _ in style(sizes.groupby(by) if by else [(None, sizes)]):
        counts = part.value_counts(["width", "height"], sort=False).reset_index(name="images")
        area = 6 + 100 * counts["images"] / len(sizes)
        look = {"color": color, "marker": marker, "alpha": 0.5, "lw": 0, "label": readable(name)}
        ax.scatter(counts["width"], counts["height"], area, **look)
    right, top = (1.15 * sizes[side].max() for side in ("width", "height"))
    counts = sizes.value_counts(["width", "height"], sort=False).reset_index(name="images")
    texts = counts[counts["images"] >= 0.05 * len(sizes)].nlargest(5, "images")
    names = [f"{row.width:.0f} × {row.height:.0f}: {row.images:,}" for row in texts.itertuples()]
    # Beside one another only where there is room: in lines above the points, from the lowest on.
    gap, wide = top * (LINE + 0.6) / 38, right * measure(names) / 66
    places = []
    for row, name in sorted(zip(texts.itertuples(), names, strict=True), key=lambda pair: pair[0].height):
        x, y = min(max(row.width, wide / 2), right - wide / 2), row.height + 1.3 * gap
        while any(abs(x - other[0]) < wide and abs(y - other[1]) < gap for other in places):
            y += gap / 4
        places.append((x, y))
        ax.annotate(name, (row.width, row.height), (x, y), ha="center", va="center")
    top = max([top, *(y + gap for _, y in places)])
    ax.set(xlim=(0, right), ylim=(0, top))
    finish(ax, "width in pixels", "height in pixels", "Image sizes")
    if by:
        place_legend(ax, grow=alone)
        plt.setp(ax.get_legend().legend_handles, alpha=1, sizes=[14])
    return ax


@redrawable("label", "red", "green", "blue")
def plot_mean_colors(images, class_names, ax=None):
    """Draw the mean colour of each class, and how far its images lie from it.

    ``images`` is a DataFrame ``label, red, green, blue``, the colours from 0 to 255.
    """
    many = len(class_names) > _MANY_CLASSES
    ax, alone = new_axes(ax, *((65, PAGE) if many else (65,))), ax is None
    grouped = images.groupby("label")[["red", "green", "blue"]]
    mean, std = grouped.mean().reindex(class_names), grouped.std().reindex(class_names)
    places = np.arange(len(class_names))
    for channel, shift, marker, color in zip(mean, (-0.2, 0, 0.2), "os^", (3, 2, 0), strict=True):
        look = {"fmt": marker, "color": PALETTE[color], "label": readable(channel)}
        ax.errorbar(places + shift, mean[channel], std[channel], ms=2.5 if many else 3.5, **look)
    top = float((mean + std.fillna(0)).max().max()) * 1.06
    for place, rgb in zip(places, mean.to_numpy(), strict=True):
        if not np.isnan(rgb).any():  # a class without images
            ax.add_patch(plt.Rectangle((place - 0.4, top), 0.8, 0.1 * top, fc=rgb / 255, ec="black"))
    name_places(ax.xaxis, [readable(name) for name in class_names], (get_width(ax) - 14) / len(class_names), alone)
    ax.set(xlim=(-0.5, len(class_names) - 0.5), ylim=(0, 1.14 * top))
    finish(ax, "class", "mean level, 0 to 255", "Mean colour (patches) ± standard deviation")
    place_legend(ax, grow=alone)
    return ax


def plot_image_grid(images, titles=None, columns=10, row_labels=None, size=16, title=None):
    """Draw images, an array or a list of arrays, in a grid row by row.

    Each image is ``size`` millimetres wide, or less where that is too wide for a page. ``titles`` stand above the
    images, ``row_labels`` at the left of the rows; texts with an underscore are names of files or layers, and stay.
    """
    titles, row_labels = (
        [name if "_" in name else readable(name) for name in names or []] for names in (titles, row_labels)
    )
    images = [np.clip(image, 0, 255).astype("uint8") for image in images]
    if not images:
        return plt.figure(figsize=(COLUMN * MM, 8 * MM))
    columns, gap = min(columns, len(images)), 1
    rows = -(-len(images) // columns)
    left = measure(row_labels) + 2 if row_labels else 0
    width = COLUMN if left + columns * (size + gap) <= COLUMN else PAGE
    size = min(size, (width - left) / columns - gap)
    side = size * images[0].shape[0] / images[0].shape[1]
    titles = [*fit(titles, size), *[""] * len(images)]
    lines = [count_lines(titles[row * columns : (row + 1) * columns]) for row in range(rows)]
    heights = [LINE * count + (1 if count else 0) + side + gap for count in lines]
    height = (5 if title else 0) + sum(heights)
    # Placed by hand, because constrained layout takes seconds for a hundred Axes.
    figure, axes = plt.subplots(rows, columns, figsize=(width * MM, height * MM), squeeze=False, layout="none")
    start = (width - left - columns * (size + gap) + gap) / 2 + left
    for number, ax in enumerate(axes.flat):
        row, column = divmod(number, columns)
        bottom = sum(heights[row + 1 :]) + gap
        ax.set_position(((start + column * (size + gap)) / width, bottom / height, size / width, side / height))
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        if number < len(images):
            ax.imshow(images[number].squeeze(), cmap="gray", vmin=0, vmax=255)
            ax.set_title(titles[number], fontsize=7, pad=2)
    for ax, text in zip(axes[:, 0], row_labels, strict=False):
        ax.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=7)
    if title:
        figure.suptitle(title if "_" in title else readable(title), y=1 - 1 / height, va="top")
    return figure


@redrawable("accuracy", "val_accuracy", "loss", "val_loss")
def plot_learning_curves(histories, watched="validation"):
    """Draw accuracy and loss over the epochs, training beside validation, for one model or several.

    ``histories`` has for the name of each model its history from `helpers.training.fit.fit_model`. Where
    ``attrs["best_epoch"]`` is set, a large marker shows the epoch whose weights were kept. ``watched`` is what the
    legend calls the images that were not trained on.
    """
    figure, axes = _make_grid(1, 2, height=60)
    for ax, quantity in zip(axes, ("accuracy", "loss"), strict=True):
        for name, color, marker, _ in style_models(histories):
            history = histories[name]
            look = {"color": color, "marker": marker, "markevery": max(1, len(history) // 8)}
            ax.plot(history.index, history[quantity], **look, ls="--", mfc="white")
            ax.plot(history.index, history[f"val_{quantity}"], **look)
            if best := history.attrs.get("best_epoch"):
                ax.plot(best, history[f"val_{quantity}"][best], marker, color=color, mec="black", ms=5.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        finish(ax, "epoch", quantity, quantity)
    axes[0].yaxis.set_major_formatter(_PERCENT)
    axes[1].set(yscale="log", ylabel="Loss (log scale)")
    low, high = axes[1].get_ylim()
    axes[1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 20 * low else MaxNLocator(5, steps=_STEPS))
    axes[1].yaxis.set_major_formatter("{x:g}")
    axes[1].minorticks_off()
    one = len(histories) == 1
    (_, color, marker, _), *_ = style_models(histories)
    color, marker = (color, marker) if one else ("grey", "o")
    handles = {} if one else {name: Line2D([], [], color=c, marker=m) for name, c, m, _ in style_models(histories)}
    handles["Training"] = Line2D([], [], color=color, marker=marker, mfc="white", ls="--")
    handles[readable(watched)] = Line2D([], [], color=color, marker=marker)
    if any(history.attrs.get("best_epoch") for history in histories.values()):
        handles["Kept epoch"] = Line2D([], [], color=color, marker=marker, mec="black", ms=5.5, ls="")
    place_common_legend(figure, handles.values(), list(handles))
    return figure


@redrawable("y_true", "y_pred")
def plot_confusion_matrix(predictions, class_names, normalize=False, title="Confusion matrix", ax=None):
    """Draw the confusion matrix of a table ``y_true, y_pred``: true classes in rows, predicted ones in columns.

    With ``normalize`` each row is divided by its sum, which puts the sensitivity of each class on the diagonal. With
    many classes letters have 6 points, and numbers a narrower font, so that 38 classes can be read on a printed page.
    """
    count, names = len(class_names), [str(name) for name in class_names]
    many = count > _MANY_CLASSES
    true, predicted = (encode_labels(predictions[column], names) for column in ("y_true", "y_pred"))
    matrix = np.bincount(true * count + predicted, minlength=count**2).reshape(count, -1)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    shown = np.char.mod("%.0f" if many else "%.1f", shares * 100) if normalize else matrix.astype(str)
    size = 6 if many else 7
    for letters, width in ((14, COLUMN), (99, COLUMN), (99, PAGE))[2 if many else 0 :]:
        labels = [wrap(readable(name), letters) for name in names]
        beside = measure(labels, size)
        width = width if ax is None else get_width(ax)
        cell = (width - beside - 9) / count
        if cell > max(LINE * count_lines(labels), measure(shown.ravel(), size)):  # neighbours do not overlap
            break
    upright = beside > cell - 0.5
    ax = new_axes(ax, min(cell, 14) * count + (beside if upright else LINE * count_lines(labels)) + 12, width)
    look = {"cmap": "Blues", "vmin": 0, "vmax": 1, "cbar": False}
    look |= {"linewidths": 0.3, "linecolor": "lightgrey", "annot": np.where(matrix == 0, "", shown), "fmt": ""}
    # Computer Modern Sans, which is shipped with Matplotlib: three of its digits fit into a small cell.
    font = {"fontsize": size, "family": "cmss10" if many else plt.rcParams["font.family"]}
    # Colour shows the square root of the share of the row, so that rare errors are seen beside a full diagonal.
    sns.heatmap(np.sqrt(shares), **look, annot_kws=font, ax=ax)
    ax.set_xticks(np.arange(count) + 0.5, labels, rotation=90 if upright else 0)
    ax.set_yticks(np.arange(count) + 0.5, labels, rotation=0)
    ax.tick_params(labelsize=size, pad=1)
    unit = "% of the true class" if normalize else "images"
    finish(ax, "predicted class", "true class", f"{title} ({unit})")
    return ax


@redrawable()
def plot_metrics(metrics, metric="accuracy", legend=True, ax=None):
    """Draw one metric of several models and test sets as points with 95 % intervals.

    ``metrics`` has for each model and each of its test sets a table of `helpers.evaluation.scores.compute_metrics`.
    ``legend`` tells whether there is one: of several panels one needs it.
    """
    names = list(next(iter(metrics.values())))
    ax, alone = new_axes(ax, 14 + (3 + 2.2 * len(metrics)) * len(names)), ax is None
    step = min(0.28, 0.8 / len(metrics))  # between the models of one test set
    for number, (model, color, marker, _) in enumerate(style_models(metrics)):
        rows = pd.DataFrame([table.loc[metric] for table in metrics[model].values()])
        heights = np.arange(len(rows)) + step * (number - (len(metrics) - 1) / 2)
        ax.hlines(heights, rows["low"], rows["high"], color=color)
        ax.plot(rows["value"], heights, marker, color=color, label=model)
    name_places(ax.yaxis, [readable(name) for name in names], 22)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=_STEPS))
    ax.xaxis.set_major_formatter(_PERCENT)
    finish(ax, f"{name_metric(metric)} with 95 % interval")
    if legend:
        place_legend(ax, grow=alone)
    return ax


@redrawable()
def plot_robustness(curves, xlabel, limit=None, legend=True, ax=None):
    """Draw the table of `helpers.evaluation.robustness.compute_robustness`, a line with a 95 % band for each model.

    ``xlabel`` says what the strength is, with its unit; a dotted line marks ``limit``, such as the largest in training.
    ``legend`` tells whether there is one: of several panels one needs it.
    """
    ax, alone = new_axes(ax), ax is None
    parts = dict(list(curves.groupby("model", sort=False)))
    for name, color, marker, line in style_models(parts):
        curve = parts[name]
        ax.plot(curve["strength"], curve["value"], ls=line, marker=marker, color=color, label=name)
        ax.fill_between(curve["strength"], curve["low"], curve["high"], color=color, alpha=0.2, lw=0)
    if limit is not None:
        ax.axvline(limit, ls=":", color="grey")
    ax.set_ylim(0, 1.03)
    ax.yaxis.set_major_formatter(_PERCENT)
    finish(ax, xlabel, "accuracy")
    if legend:
        place_legend(ax, grow=alone)
    return ax


@redrawable()
def plot_corruptions(curves, chance=0, ax=None):
    """Draw the curves of `helpers.evaluation.robustness.score_corruptions`: thin for each corruption, thick their mean.

    The two corruptions that do most harm are named at the right; a dotted line marks ``chance``.
    """
    ax, alone = new_axes(ax, 65), ax is None
    parts, ends = dict(list(curves.groupby("model", sort=False))), []
    for name, color, marker, line in style_models(parts):
        wide = parts[name].pivot_table("value", "severity", "corruption")
        ax.plot(wide, color=color, lw=0.5, alpha=0.4)
        ax.plot(
            wide.mean(axis=1), color=color, ls=line, marker=marker, lw=1.6, label=f"{name}, mean of {wide.shape[1]}"
        )
        worst = wide[wide.mean().nsmallest(2).index].iloc[-1]
        ends += [(height, wrap(readable(corruption), 12), color) for corruption, height in worst.items()]
    line = 1.03 * LINE / 42  # a line of text, as a share of the accuracy
    heights = _spread([end[0] for end in ends], [line * (count_lines([end[1]]) + 0.2) for end in ends])
    for (height, corruption, color), at in zip(ends, heights, strict=True):
        look = {
            "arrowprops": {"arrowstyle": "-", "lw": 0.5, "color": color, "shrinkA": 0, "shrinkB": 2, "relpos": (0, 0.5)}
        }
        ax.annotate(corruption, (5, height), (5.35, at), va="center", annotation_clip=False, **look)
    ax.axhline(chance, ls=":", color="grey", label="Guessing")
    ax.set(ylim=(0, 1.03), xlim=(-0.1, 5.1), xticks=range(6))
    ax.yaxis.set_major_formatter(_PERCENT)
    finish(ax, "severity; 0: unaltered", "balanced accuracy")
    place_legend(ax, right=measure(end[1] for end in ends) + 5, grow=alone)
    return ax


@redrawable()
def plot_occlusion(table, chance=0.5, ax=None):
    """Draw the ROC AUC on images of which a part is covered, a line for each column: for each way to cover them.

    The index of ``table`` says how much is covered, and its name is the label; a dotted line marks ``chance``.
    """
    ax, alone = new_axes(ax), ax is None
    for name, color, marker, line in style(table):
        ax.plot(table.index, table[name], marker=marker, ls=line, color=color, label=readable(name))
    ax.axhline(chance, ls=":", color="grey", label="Guessing")
    ax.set_ylim(0, 1.03)
    finish(ax, table.index.name, "ROC AUC", "What the model sees")
    place_legend(ax, grow=alone)
    return ax


@redrawable()
def plot_shortcuts(table, reached, ax=None):
    """Draw how far shortcuts come, and below each what is left of a model's score when it is balanced away.

    ``table`` has the columns ``shortcut, value, low, high`` and ``left_value, left_low, left_high``; ``reached``, the
    score of the model, is a dotted line. What rests on too few groups for an interval is hollow.
    """
    ax, alone = new_axes(ax, 14 + 8 * len(table)), ax is None
    places, hollow = np.arange(len(table)), False
    kinds = (
        ("", -0.17, PALETTE[0], "o", "Shortcut"),
        ("left_", 0.17, PALETTE[1], "s", "Model, shortcut balanced away"),
    )
    for prefix, shift, color, marker, label in kinds:
        low, high, value = (table[f"{prefix}{name}"].to_numpy("float64") for name in ("low", "high", "value"))
        ax.hlines(places + shift, low, high, color=color)
        for known, fill in ((~np.isnan(low), color), (np.isnan(low), "none")):
            ax.plot(value[known], places[known] + shift, marker, color=color, mfc=fill)
        hollow |= np.isnan(low).any()
        ax.plot([], [], marker, color=color, label=label)
    if hollow:
        ax.plot([], [], "o", color="grey", mfc="none", label="Too few groups for an interval")
    ax.axvline(reached, ls=":", color="grey", label="Model")
    name_places(ax.yaxis, [readable(name) for name in table["shortcut"]], 30)
    ax.set_ylim(len(table) - 0.5, -0.5)
    finish(ax, "ROC AUC with 95 % interval")
    place_legend(ax, grow=alone)
    return ax


@redrawable()
def plot_choice(table, ax=None):
    """Draw the table of `helpers.evaluation.choosing.check_rule`: how often each model is chosen, how often best."""
    ax, alone = new_axes(ax, 14 + 7 * len(table)), ax is None
    places = np.arange(len(table))
    for shift, column, color in ((-0.2, "chosen", PALETTE[0]), (0.2, "best", PALETTE[1])):
        label = "Chosen on one half" if column == "chosen" else "Best on the other half"
        look = {"color": color, "hatch": _HATCHES[1] if shift > 0 else "", "ec": "white", "lw": 0}
        ax.barh(places + shift, table[column], 0.36, label=label, **look)
    name_places(ax.yaxis, table.index, 34)
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.xaxis.set_major_formatter(_PERCENT)
    ax.grid(False, axis="y")
    finish(ax, "share of the divisions")
    place_legend(ax, grow=alone)
    return ax


@redrawable()
def plot_calibration(calibration, title="Calibration", model="model", ax=None):
    """Draw the table of `helpers.evaluation.calibration.compute_calibration`: accuracy over confidence.

    A calibrated model lies on the diagonal. Bars are 95 % intervals; those of bins with few images are long. ``model``
    is the name of the model.
    """
    ax, alone = new_axes(ax), ax is None
    ax.plot([0, 1], [0, 1], ls="--", color="grey", label="Calibrated")
    accuracy = calibration["accuracy"].to_numpy()
    spread = np.abs(calibration[["low", "high"]].T.to_numpy() - accuracy)
    ((_, color, marker, _),) = style_models([model])
    look = {"color": color, "marker": marker, "elinewidth": 0.8, "label": model}
    ax.errorbar(calibration["confidence"], accuracy, spread, **look)
    ax.set(xlim=(0, 1.03), ylim=(0, 1.03))
    finish(ax, "mean confidence", "accuracy", title)
    place_legend(ax, grow=alone)
    return ax


@redrawable()
def plot_abstaining(curves, ax=None):
    """Draw the accuracy over the share of images that are answered, a line with a 95 % band for each model.

    ``curves`` has for the name of each model the table of `helpers.evaluation.calibration.compute_abstaining`.
    """
    ax, alone = new_axes(ax), ax is None
    for name, color, marker, line in style_models(curves):
        curve = curves[name]
        ax.plot(curve["answered"], curve["accuracy"], ls=line, marker=marker, color=color, label=name)
        ax.fill_between(curve["answered"], curve["low"], curve["high"], color=color, alpha=0.2, lw=0)
    ax.set_xlim(0, 1.03)
    ax.xaxis.set_major_formatter(_PERCENT)
    ax.yaxis.set_major_formatter(_PERCENT)
    finish(ax, "share of the images that are answered", "accuracy of these", "Abstaining")
    place_legend(ax, grow=alone)
    return ax


@redrawable()
def plot_roc(roc, points=None, title="ROC curves, one class against the rest", ax=None):
    """Draw the curves of `helpers.evaluation.scores.compute_roc`, of each class, or model if there is such a column.

    ``points`` are operating points to mark: a dict of names to pairs of specificity and sensitivity. Their marks are
    hollow, and the first the largest, so that none hides another one.
    """
    ax, alone = new_axes(ax, 82), ax is None
    kind = "model" if "model" in roc else "class"
    parts = dict(list(roc.groupby(kind, sort=False)))
    for name, color, _, line in style_models(parts) if kind == "model" else style(parts):
        curve, label = parts[name], name if kind == "model" else readable(name)
        label = f"{label} ({curve['roc_auc'].iloc[0]:.3f})"
        ax.plot(curve["false_positive_rate"], curve["true_positive_rate"], ls=line, color=color, label=label)
    sizes = np.linspace(9, 4, max(2, len(points or {})))
    for (name, (specificity, sensitivity)), marker, size in zip((points or {}).items(), cycle("osD^vP"), sizes):
        look = {"color": "black", "mfc": "none", "ms": size, "label": readable(name), "clip_on": False}
        ax.plot(1 - specificity, sensitivity, marker, **look)
    ax.plot([0, 1], [0, 1], ls=":", color="grey")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    finish(ax, "1 − specificity", "sensitivity", title)
    place_legend(ax, title=f"{readable(kind)} (ROC AUC)", grow=alone)
    return ax


@redrawable()
def plot_precision_recall(curves, title="Precision-recall curves, one class against the rest", ax=None):
    """Draw the curves of `helpers.evaluation.scores.compute_precision_recall`."""
    ax, alone = new_axes(ax, 82), ax is None
    for (name, curve), color, _, line in style(curves.groupby("class", sort=False)):
        label = f"{readable(name)} ({curve['average_precision'].iloc[0]:.2f} / {curve['prevalence'].iloc[0]:.2f})"
        ax.plot(curve["recall"], curve["precision"], ls=line, color=color, label=label, drawstyle="steps-post")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    finish(ax, "recall (sensitivity)", "precision", title)
    place_legend(ax, title="Class (average precision / chance)", grow=alone)
    return ax


@redrawable()
def plot_net_benefit(net_benefits, title="Decision curve", ax=None):
    """Draw decision curves: net benefit over the threshold, beside treating everybody and nobody.

    ``net_benefits`` has for the name of each model the table of `helpers.evaluation.thresholds.compute_net_benefit`.
    """
    ax, alone = new_axes(ax), ax is None
    for name, color, _, line in style_models(net_benefits):
        curve = net_benefits[name]
        ax.plot(curve["threshold"], curve["model"], ls=line, color=color, label=name)
    ax.plot(curve["threshold"], curve["all"], color="grey", lw=0.8, label="Alarm for all")
    ax.axhline(0, color="black", lw=0.8, ls=":", label="Alarm for none")
    top = max(0.05, *(curve[["model", "all"]].to_numpy().max() for curve in net_benefits.values()))
    ax.set_ylim(-0.15 * top, 1.1 * top)
    finish(ax, "threshold on the probability", "net benefit per image", title)
    place_legend(ax, grow=alone)
    return ax


@redrawable()
def plot_intervals(table, column, xlabel, reference=None, title="", ax=None):
    """Draw ``value, low, high`` of each row of a table, whose name stands in ``column``.

    The column ``reference`` has values to compare with, drawn as vertical marks.
    """
    names = [readable(name) for name in table[column]]
    ax, alone = new_axes(ax, 14 + (LINE * count_lines(fit(names, _NAMES)) + 2) * len(table)), ax is None
    places = np.arange(len(table))
    ax.hlines(places, table["low"], table["high"], color=PALETTE[0])
    ax.plot(table["value"], places, "o", color=PALETTE[0], label=readable(xlabel.partition(" with")[0]))
    if reference:
        ax.plot(table[reference], places, "|", color=PALETTE[1], ms=8, mew=1.5, label=readable(reference))
    name_places(ax.yaxis, names, _NAMES)
    ax.set_ylim(len(table) - 0.5, -0.5)
    finish(ax, xlabel, title=title)
    if reference:
        place_legend(ax, grow=alone)
    return ax


@redrawable()
def plot_effects(table, metrics=("validation_accuracy", "test_accuracy")):
    """Draw metrics over the levels of each factor, one panel per factor: a point per seed, and a line of the means.

    ``table`` has a row per factor, level and seed, in the order to draw: ``factor, level`` and the metrics; missing
    values are left out. What the names of the metrics have in common is the label of the y axis.
    """
    factors = list(table.groupby("factor", sort=False))
    columns = min(3, len(factors))
    rows = -(-len(factors) // columns)
    figure, axes = _make_grid(rows, columns, height=52 * rows, sharey=True)
    common = [word for word in metrics[0].split("_") if all(word in metric.split("_") for metric in metrics)]
    handles = {}
    for place, (ax, (factor, part)) in enumerate(zip(axes, factors, strict=False)):
        levels = list(part["level"].unique())
        for number, (metric, color, marker, line) in enumerate(style(metrics)):
            # Beside one another, so that neither metrics nor means hide anything.
            shift, side = 0.14 * (number - (len(metrics) - 1) / 2), -1 if number < len(metrics) / 2 else 1
            places = part["level"].map(levels.index) + (shift + 0.1 * side)
            ax.plot(places, part[metric], marker, color=color, ms=3, alpha=0.45, mew=0)
            label = readable(" ".join(word for word in metric.split("_") if word not in common) or metric)
            means = part.groupby("level", sort=False)[metric].mean().to_numpy()
            (handles[label],) = ax.plot(np.arange(len(levels)) + shift, means, marker, ls=line, color=color, ms=4)
        ax.set_xlim(-0.5, len(levels) - 0.5)
        name_places(ax.xaxis, levels, (get_width(ax) - 8) / len(levels))
        ax.grid(False, axis="x")
        finish(ax, "", "" if place % columns else name_metric(" ".join(common)), factor)
    for ax in axes[len(factors) :]:
        ax.remove()
    if common[-1:] != ["auc"]:
        axes[0].yaxis.set_major_formatter(_PERCENT)
    place_common_legend(figure, handles.values(), list(handles))
    return figure


@redrawable()
def plot_embedding(points, labels, title="", legend_title=None, ax=None):
    """Draw points, an array (n, 2) such as from `helpers.evaluation.clusters.embed`, colour and marker for their label.

    The legend has the n labels in sorted order, those of a Categorical in the order of its categories. About 12 can be
    distinguished at a glance. Points without a label are left out.
    """
    points, labels = np.asarray(points), pd.Series(labels).reset_index(drop=True)
    if points.shape != (len(labels), 2):
        raise ValueError(f"Points of shape {points.shape} do not belong to {len(labels)} labels.")
    ax, alone = new_axes(ax, 70), ax is None
    area = float(np.clip(5_000 / max(1, len(points)), 3, 10))
    parts = labels.groupby(labels, observed=True)
    for (name, part), color, marker, _ in style(parts):
        look = {"color": color, "marker": marker, "alpha": 0.65, "lw": 0, "label": readable(name)}
        look["zorder"] = 2 + 0.5 * (1 - len(part) / len(labels))  # the rare above the frequent, which would hide them
        ax.scatter(*points[part.index].T, area, **look)
    ax.set(xticks=[], yticks=[])
    ax.set_aspect("equal", adjustable="datalim")
    finish(ax, "first dimension", "second dimension", title)
    place_legend(ax, title=readable(legend_title) if legend_title else None, grow=alone)
    plt.setp(ax.get_legend().legend_handles, alpha=1, sizes=[12])
    return ax


@redrawable()
def plot_clusterings(table, group_name="subject"):
    """Draw the table of `helpers.evaluation.clusters.compare_clusterings` in two panels, a line for each method.

    Agreement with the class has solid lines and full markers, with the group dashed lines and empty markers.
    """
    figure, axes = _make_grid(1, 2, height=60)
    handles = {}
    for (method, part), color, marker, _ in style(table.groupby("method", sort=False)):
        part = part.sort_values("clusters")
        look, dashed = {"color": color, "marker": marker}, {"ls": "--", "mfc": "white"}
        (handles[readable(method)],) = axes[0].plot(part["clusters"], part["silhouette"], **look)
        axes[1].plot(part["clusters"], part["agreement_class"], **look)
        axes[1].plot(part["clusters"], part["agreement_group"], **look, **dashed)
    axes[1].axhline(0, color="grey", ls=":")
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    finish(axes[0], "number of clusters", "silhouette", "Silhouette")
    finish(axes[1], "number of clusters", "adjusted Rand index", "Agreement")
    handles["With the class"] = Line2D([], [], color="grey", marker="o")
    handles[f"With the {group_name}"] = Line2D([], [], color="grey", marker="o", **dashed)
    place_common_legend(figure, handles.values(), list(handles))
    return figure


def overlay_heatmaps(images, heatmaps, strength=0.45):
    """Lay heatmaps over images, as uint8 array (n, height, width, 3) to be drawn with `plot_image_grid`.

    ``heatmaps`` is an array (n, height, width) from 0 to 1, such as from `helpers.evaluation.explain.compute_grad_cam`;
    ``strength`` is its share.
    """
    images = np.broadcast_to(np.asarray(images, "float32"), (*images.shape[:3], 3))
    colors = 255 * plt.get_cmap("viridis")(heatmaps)[..., :3]
    return ((1 - strength) * images + strength * colors).astype("uint8")


@redrawable()
def plot_layers(layers, ax=None):
    """Draw the table of `helpers.training.networks.describe_layers` as a row of boxes.

    The height of a box shows the side of the images, its width the number of channels. Each kind of layer has the same
    colour and hatch in every figure.
    """
    ax, alone = new_axes(ax, 50, PAGE), ax is None
    looks = {
        kind: (PALETTE[n], hatch)
        for n, kinds in enumerate(_LAYERS)
        for kind, hatch in zip(kinds, _HATCHES, strict=False)
    }
    looks["InputLayer"] = ("white", "")
    unknown = sorted(set(layers["kind"]) - set(looks))
    looks |= {kind: ("lightgrey", hatch) for kind, hatch in zip(unknown, cycle(_HATCHES), strict=False)}
    x, shape = 0.0, None
    for row, new in zip(layers.itertuples(), ~layers["kind"].duplicated(), strict=True):
        is_map = len(row.output_shape) == 3
        side = row.output_shape[0] if is_map else 1.5 * np.log2(row.output_shape[0] + 1)
        width = 0.35 + 0.25 * np.log2(row.output_shape[-1]) if is_map else 0.7
        color, hatch = looks[row.kind]
        look = {"color": color, "hatch": hatch, "edgecolor": "black", "label": row.kind if new else None}
        ax.bar(x, side, width, bottom=-side / 2, align="edge", **look)
        if row.output_shape != shape:
            shape, look = row.output_shape, {"rotation": 90, "va": "top", "ha": "center", "annotation_clip": False}
            place = {"xytext": (0, -3), "textcoords": "offset points"}
            ax.annotate("×".join(map(str, shape)), (x + width / 2, -side / 2), **place, **look)
        x += width + 0.35
    top = max(bar.get_height() for bar in ax.patches)
    ax.set(xlim=(-0.5, x), ylim=(-0.52 * top, 0.52 * top))
    ax.set_axis_off()
    place_legend(ax, above=True, grow=alone)
    return ax


def _make_grid(rows, columns, width=PAGE, height=None, **shared):
    """Make a figure of this size in millimetres, and its Axes as a flat array."""
    size = width * MM, (58 * rows if height is None else height) * MM
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, **shared)
    return figure, axes.ravel()


def _move_legend(ax, grow, wanted=True):
    """Put the legend that seaborn made below the Axes, or take it away."""
    legend = ax.get_legend()
    handles, labels = legend.legend_handles, [readable(text.get_text()) for text in legend.get_texts()]
    legend.remove()
    if wanted:
        place_legend(ax, handles, labels, grow=grow)


def _spread(heights, lengths, top=1.03):
    """Move texts of these lengths apart as little as needed, so that none overlaps another one; return the heights."""
    order, moved = np.argsort(heights, kind="stable"), np.array(heights, "float64")
    low = 0
    for place in order:  # upwards from the lowest
        moved[place] = max(moved[place], low + lengths[place] / 2)
        low = moved[place] + lengths[place] / 2
    high = top
    for place in order[::-1]:  # and down again, where they would leave the axes
        moved[place] = min(moved[place], high - lengths[place] / 2)
        high = moved[place] - lengths[place] / 2
    return moved
