"""Alternative text: what a figure shows in words, for readers who hear a page instead of seeing it."""

import re
from collections import Counter

import numpy as np
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.container import BarContainer
from matplotlib.patches import PathPatch

_MOST = 12  # values or names that are listed; a reader who hears more of them loses the thread
_LONGEST = 900  # letters


def write_alt_text(figure):
    """Describe a figure from what is drawn in it: for each panel its kind, title, axes, and names with values.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> bars = ax.bar(["cat", "dog"], [30, 12])
    >>> text = ax.set(title="Images per class", ylabel="images")
    >>> write_alt_text(figure)
    'Bar chart: Images per class. Vertical axis: images. cat 30, dog 12.'
    >>> plt.close(figure)
    """
    panels = [ax for ax in figure.axes if ax.get_visible() and ax.get_label() != "<colorbar>"]
    pictures = [ax for ax in panels if ax.images]
    described = [_clean(figure.get_suptitle()).rstrip(".")] if figure.get_suptitle() else []
    if pictures:
        described.append(_describe_pictures(pictures))
    described += [text for ax in panels if ax not in pictures and (text := _describe_panel(ax))]
    if names := [_clean(text.get_text()) for legend in figure.legends for text in legend.get_texts()]:
        described.append(f"Legend: {_list(names)}")
    described += [_clean(text.get_text()) for text in figure.texts if text.get_gid() == "mark"]
    text = " ".join(f"{part[:1].upper()}{part[1:]}." for part in described)
    return text if len(text) <= _LONGEST else text[:_LONGEST].rpartition(" ")[0] + " …"


def read_first_sentence(markdown):
    """Read the first sentence of a text in Markdown, without its signs.

    Examples
    --------
    >>> read_first_sentence("The **[ECE](glossary.md#ece)** is 0.02. It was 0.05.")
    'The ECE is 0.02.'
    """
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", markdown)
    plain = _clean(re.sub(r"\*\*|`|(?<!\w)[*_](?=\w)|(?<=\w)[*_](?!\w)|^[-#]+ ", "", plain))
    return re.split(r"(?<=[.!?]) ", plain, maxsplit=1)[0]


def _describe_pictures(panels):
    """Tell how many pictures a grid has, and how often each of its titles stands above one."""
    titles = Counter(filter(None, (_clean(ax.get_title()) for ax in panels)))
    rows = list(dict.fromkeys(filter(None, (_clean(ax.get_ylabel()) for ax in panels))))
    text = f"{len(panels)} image{'s' * (len(panels) > 1)}"
    if rows:
        text += f" in rows: {_list(rows)}"
    if titles:
        text += (
            f". Titles: {_list(f'{title} ({count} times)' if count > 1 else title for title, count in titles.items())}"
        )
    return text


def _describe_panel(ax):
    kind, content = _find_content(ax)
    title = _clean("".join(ax.get_title(place) for place in ("left", "center", "right")))  # there is one
    if not (kind or title):
        return ""
    parts = [": ".join(filter(None, (kind or "Panel", title)))]
    for name, label in (("Horizontal", ax.get_xlabel()), ("Vertical", ax.get_ylabel())):
        if label:
            parts.append(f"{name} axis: {_clean(label)}")
    return ". ".join([*parts, *content])


def _find_content(ax):
    """Find the kind of a chart, and name what it shows: the bars, lines, points or cells."""
    bars = [container for container in ax.containers if isinstance(container, BarContainer)]
    meshes = [item for item in ax.collections if isinstance(item, QuadMesh)]
    if meshes:
        return "Matrix", _read_cells(ax, meshes[0])
    if bars:
        return "Bar chart", _read_bars(ax, bars)
    if any(isinstance(patch, PathPatch) for patch in ax.patches):
        return "Box plot", _name(ax, _read_names(ax))
    if _read_names(ax, [ax.yaxis]):
        return "Points in rows", _read_rows(ax)
    if lines := [line for line in ax.lines if len(line.get_xdata()) > 2]:
        return "Line chart", _read_lines(ax, lines)
    if any(isinstance(item, PathCollection) for item in ax.collections) or ax.lines:
        return "Points", _name(ax, _read_names(ax))
    return ("Diagram" if ax.patches else None), _name(ax, [text.get_text() for text in ax.texts])


def _read_bars(ax, bars):
    """Read what each bar stands for and how long it is, where they are few enough to listen to."""
    horizontal = bars[0].orientation == "horizontal"
    axis = ax.yaxis if horizontal else ax.xaxis
    names, places = [_clean(tick.get_text()) for tick in axis.get_ticklabels()], axis.get_ticklocs()
    labels = [_clean(container.get_label()) for container in bars]
    if ax.get_legend() and len(legend := ax.get_legend().get_texts()) == len(bars):  # seaborn names no bars
        labels = [_clean(text.get_text()) for text in legend]
    groups = []
    for label, container in zip(labels, bars, strict=True):
        values = []
        for patch in container.patches:
            (x, y), width, height = patch.get_xy(), patch.get_width(), patch.get_height()
            middle, length = (y + height / 2, width) if horizontal else (x + width / 2, height)
            away = abs(places - middle)
            if not names or away.min() >= 0.5:  # such as a histogram
                return _name(ax, _read_names(ax))
            values.append(f"{names[away.argmin()]} {_show(length)}")
        groups.append(", ".join(values) if label.startswith("_") else f"{label}: {', '.join(values)}")
    return groups if sum(len(container.patches) for container in bars) <= 2 * _MOST else _name(ax, names)


def _read_lines(ax, lines):
    """Name the lines, and tell where each begins and ends unless its name tells numbers already."""
    texts = []
    for line in lines:
        name, ends = _clean(line.get_label()), np.asarray(line.get_ydata(orig=False), float)[[0, -1]]
        if name.startswith("_"):
            continue
        told = any(letter.isdigit() for letter in name) or not np.isfinite(ends).all()
        texts.append(name if told else f"{name} from {_show(ends[0])} to {_show(ends[1])}")
    return [f"Lines: {_list(texts, '; ')}"] if texts else _name(ax)


def _read_rows(ax):
    """Read the points of each row that has a name, such as a metric of each model, where they are few enough."""
    names, groups = _read_names(ax, [ax.yaxis]), []
    for line in ax.lines:
        label, values = _clean(line.get_label()), line.get_xdata(orig=False)
        if len(values) == len(names) and line.get_marker() not in ("", "None", None):
            told = ", ".join(f"{name} {_show(value)}" for name, value in zip(names, values, strict=True))
            groups.append(told if label.startswith("_") else f"{label}: {told}")
    few = groups and len(groups) * len(names) <= 2 * _MOST
    return groups if few else _name(ax, names)


def _read_cells(ax, mesh):
    """Read a matrix row by row; of a large one the names of its rows only."""
    texts = [_clean(text.get_text()) or "0" for text in ax.texts]
    rows, columns = (
        [_clean(tick.get_text()) for tick in ticks] for ticks in (ax.get_yticklabels(), ax.get_xticklabels())
    )
    if rows and columns and len(texts) == len(rows) * len(columns) == mesh.get_array().size <= 2 * _MOST + 1:
        cells = np.reshape(texts, (len(rows), len(columns)))
        return [
            f"{row}: " + ", ".join(f"{column} {cell}" for column, cell in zip(columns, line, strict=True))
            for row, line in zip(rows, cells, strict=True)
        ]
    return _name(ax, rows)


def _read_names(ax, axes=None):
    """Read the names at the ticks of an axis, by default of the first that has names; [] where there are numbers."""
    for axis in axes or (ax.xaxis, ax.yaxis):
        names = [_clean(tick.get_text()) for tick in axis.get_ticklabels()]
        if any(name[:1].isalpha() for name in names):
            return names
    return []


def _name(ax, names=()):
    """List the names of a chart: those given, and those of its legend."""
    names = [_clean(name) for name in names]
    if legend := ax.get_legend():
        names += [_clean(text.get_text()) for text in legend.get_texts()]
    names = list(dict.fromkeys(filter(None, names)))
    return [f"Shown: {_list(names)}"] if names else []


def _list(names, comma=", "):
    names = list(names)
    more = f"{comma}and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return comma.join(names[:_MOST]) + more


def _clean(text):
    return " ".join(text.split())


def _show(number):
    return f"{number:,.0f}" if abs(number) >= 100 or float(number).is_integer() else f"{number:.3g}".replace("-", "−")
