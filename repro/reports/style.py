"""One style for all figures: readable in a two-column page, distinguishable without colour vision."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

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
_OTHERS = ("#7F7F7F", "#8C564B", "#A6761D", "#666633", "#996699", "#336666")


def colour(label: str) -> str:
    """The fixed colour of a method, with or without its β ("VSULD", "VSULD-5"); other labels get one of their own."""
    for name in (label, label.split("-")[0]):
        if name in METHOD_COLOURS:
            return METHOD_COLOURS[name]
    return _OTHERS[hashlib.sha256(label.encode()).digest()[0] % len(_OTHERS)]


def palette(labels: Iterable[str]) -> dict[str, str]:
    """Colours by label, as seaborn's `palette=` takes them."""
    return {label: colour(label) for label in labels}


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
