"""Whether a figure can be read: what `Report.save_figure` notes with each, and a test asks of the committed ones."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from matplotlib.text import Text

_CLOSE = 0.12  # distance of two colours in the unit cube below which they count as one
_MATHS = re.compile(r"\$.*?\$")
_RAW = re.compile(r"_|\w\+\w")  # in a table's name: "end_sde", "exponential+denoise"


def faults(fig: Figure) -> list[str]:
    """What is wrong with a figure, one line each; none is the empty list.

    Tick labels or annotations that collide, a legend over data, two entries of a legend in one look, and names as
    tables hold them ("end_sde") in place of words.
    """
    fig.canvas.draw()
    lines = []
    for number, axes in enumerate(fig.axes):
        where = axes.get_title() or f"panel {number + 1}"
        found = [*_collisions(axes), *_raw(axes)]
        if (legend := axes.get_legend()) is not None:
            found += [*_covered(axes, legend), *_alike(legend)]
        lines += [f"{where}: {fault}" for fault in found]
    return lines


def _boxes(texts: Iterable[Text]) -> list[tuple[str, Any]]:
    return [(t.get_text(), t.get_window_extent()) for t in texts if t.get_visible() and t.get_text().strip()]


def _collisions(axes: Axes) -> Iterator[str]:
    def ticks(axis: Any) -> Iterator[Text]:
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if low <= tick.get_loc() <= high:
                yield from (tick.label1, tick.label2)

    kinds = {"ticks of x": ticks(axes.xaxis), "ticks of y": ticks(axes.yaxis), "annotations": axes.texts}
    for kind, texts in kinds.items():
        for (a, first), (b, second) in itertools.combinations(_boxes(texts), 2):
            if first.overlaps(second) and first.padded(-1).overlaps(second.padded(-1)):
                yield f"{kind} collide: {a!r} and {b!r}"
                break


def _covered(axes: Axes, legend: Legend) -> Iterator[str]:
    box = legend.get_window_extent().padded(-2)
    for line in axes.lines:
        path = line.get_transform().transform_path(line.get_path())
        if line.get_visible() and np.size(line.get_xydata()) and path.intersects_bbox(box, filled=False):
            yield f"legend over {str(line.get_label())!r}"
    for bar in axes.patches:
        if bar.get_window_extent().overlaps(box):
            yield "legend over a bar"
            break
    for collection in axes.collections:
        places = collection.get_offset_transform().transform(collection.get_offsets())
        if len(places) > 1 and any(box.contains(*place) for place in places):
            yield "legend over points"


def _alike(legend: Legend) -> Iterator[str]:
    from matplotlib.colors import to_rgb
    from matplotlib.lines import Line2D

    entries = [
        (text.get_text(), line)
        for text, line in zip(legend.get_texts(), legend.legend_handles, strict=True)
        if isinstance(line, Line2D)
    ]
    for (a, one), (b, other) in itertools.combinations(entries, 2):
        style = [(x.get_linestyle(), str(x.get_marker()), str(x.get_markerfacecolor()) == "w") for x in (one, other)]
        gap = sum((p - q) ** 2 for p, q in zip(to_rgb(one.get_color()), to_rgb(other.get_color()), strict=True)) ** 0.5
        if style[0] == style[1] and gap < _CLOSE:
            yield f"legend shows {a!r} and {b!r} alike"


def _raw(axes: Axes) -> Iterator[str]:
    texts = [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
    texts += [*axes.get_xticklabels(), *axes.get_yticklabels()]
    texts += legend.get_texts() if (legend := axes.get_legend()) is not None else []
    for text in texts:
        if text.get_visible() and _RAW.search(_MATHS.sub("", text.get_text())):
            yield f"{text.get_text()!r} is a table's name"
