"""One style for all figures: readable in a two-column page, distinguishable without colour vision."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

# Okabe and Ito's palette: overdamped warm, momentum cold, variational the darker of each pair.
METHOD_COLOURS = {
    "SGM": "#E69F00",
    "VSDM": "#D55E00",
    "CLD": "#56B4E9",
    "ULD": "#0072B2",
    "VSCLD": "#CC79A7",
    "VSULD": "#009E73",
    "real": "#404040",
}
_OTHERS = ("#7F7F7F", "#7A3B1D", "#5E3C99", "#1F2D2D", "#8DB600", "#8FA3BF")
_WORDS = {
    "var": "VAR", "deepar": "DeepAR", "euler-maruyama": "Euler–Maruyama", "euler": "Euler", "heun": "Heun",
    "aboba": "ABOBA", "baoab": "BAOAB", "rk45": "RK45",
}  # fmt: skip
_STRAIGHT = ("-", "--", ":", "-.")
_MARKERS = "osD^v"
_STEPS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))  # ticks of a logarithmic scale in a decade


def colour(label: str) -> str:
    """The fixed colour of a method, with or without its β ("VSULD", "VSULD-5"); other labels get one of their own."""
    for name in (label, label.split("-")[0]):
        if name in METHOD_COLOURS:
            return METHOD_COLOURS[name]
    return _OTHERS[hashlib.sha256(label.encode()).digest()[0] % len(_OTHERS)]


def looks(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, line style and marker by label, no two alike: what matplotlib's `plot` takes as keywords.

    A label that names a method ("CLD-10", "steered VSCLD") has the method's colour, and the labels of one method
    differ in line and marker; the others have colours of their own.
    """
    names = list(dict.fromkeys(labels))
    method = {n: next((m for m in METHOD_COLOURS if m in re.split(r"\W+", n)), "") for n in names}
    free, used = itertools.cycle(_OTHERS), dict[str, int]()
    styles: dict[str, dict[str, Any]] = {}
    for name in names:
        tint = METHOD_COLOURS[method[name]] if method[name] else next(free)
        turn = used[tint] = used.get(tint, -1) + 1
        styles[name] = {"color": tint, "ls": _STRAIGHT[turn % 4], "marker": _MARKERS[turn % 5]}
    return styles


def curve(ax: Axes, table: pd.DataFrame, x: str, y: str, **look: Any) -> None:
    """The mean of column `y` against `x`, and a band of one standard deviation (n − 1) over the rows of each x."""
    import numpy as np

    rows = table.groupby(x)[y].agg(["mean", "std"]).fillna(0)
    at, mean, std = (np.asarray(column) for column in (rows.index, rows["mean"], rows["std"]))
    (line,) = ax.plot(at, mean, **({"ms": 4} | look))
    low = np.maximum(mean - std, mean / 2)  # a logarithmic scale has no 0
    ax.fill_between(at, low, mean + std, color=line.get_color(), alpha=0.2, lw=0)


def plain_log(*axes: Axis) -> None:
    """Logarithmic scales of axes (`ax.xaxis`) that show plain numbers, a few of them; call it after drawing."""
    from matplotlib import ticker

    for axis in axes:
        axis.axes.set(**{"xscale" if axis is axis.axes.xaxis else "yscale": "log"})
        low, high = sorted(axis.get_view_interval())
        powers = [10.0**k for k in range(-30, 30)]
        inside = [[m * p for p in powers for m in step if low <= m * p <= high] for step in _STEPS]
        fitting = [ticks for ticks in inside if len(ticks) >= 3] or [list(ticker.MaxNLocator(5).tick_values(low, high))]
        ticks = [t for t in fitting[0] if low <= t <= high]
        axis.set_ticks(ticks, [f"{t:.10g}" if 1e-3 <= t < 1e4 else f"$10^{{{round(math.log10(t))}}}$" for t in ticks])
        axis.set_minor_formatter(ticker.NullFormatter())


def label_points(ax: Axes, places: Sequence[tuple[float, float]], names: Sequence[str], **style: Any) -> None:
    """Names beside points (x, y in data units), each on the first side where it meets no other name and no point.

    Each in its own `colour`, so that it is no other point's.
    """
    ax.figure.canvas.draw()
    taken = [ax.transData.transform(place) for place in places]
    boxes: list[Any] = []
    sides: list[tuple[int, int, Literal["left", "center", "right"]]]
    sides = [(7, 0, "left"), (0, 10, "center"), (0, -10, "center"), (-7, 0, "right")]
    sides += [(7, 9, "left"), (7, -9, "left"), (-7, 9, "right"), (-7, -9, "right"), (9, 18, "left"), (9, -18, "left")]
    for place, name in zip(places, names, strict=True):
        text = ax.annotate(name, place, textcoords="offset points", va="center", color=colour(name), **style)
        for dx, dy, side in sides:
            text.xyann = dx, dy
            text.set_horizontalalignment(side)
            box = text.get_window_extent().padded(1)
            inside = ax.bbox.x0 <= box.x0 and box.y1 <= ax.bbox.y1 and ax.bbox.y0 <= box.y0
            if inside and not any(box.overlaps(b) for b in boxes) and not any(box.contains(*p) for p in taken):
                break
        boxes.append(box)


def words(name: str) -> str:
    """A name as tables hold it ("simbench_load"), in words."""
    plain, _, last = name.partition("+denoise")
    return _WORDS.get(plain, plain.replace("_", " ")) + (", denoised" + last if plain != name else "")


def palette(labels: Iterable[str]) -> dict[str, str]:
    """Colours by label, as seaborn's `palette=` takes them: fixed ones for methods, else different ones in turn."""
    return {label: look["color"] for label, look in looks(labels).items()}


def use_style() -> None:
    """Set matplotlib and seaborn to the style of the report (called by `Report`)."""
    import matplotlib as mpl
    import seaborn as sns

    sns.set_theme(context="paper", style="ticks", palette=list(METHOD_COLOURS.values()), font_scale=1.05)
    mpl.rcParams.update(
        {
            "figure.dpi": 100,
            "savefig.dpi": 150,
            "figure.constrained_layout.use": True,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "grid.linewidth": 0.6,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "legend.frameon": False,
            "lines.linewidth": 1.6,
            "pdf.fonttype": 42,  # text stays text
            "font.family": "DejaVu Sans",  # ships with matplotlib: the same everywhere
        }
    )
