"""What follows a panel: quantiles as a table, and their picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from vsmd import checks, messages
from vsmd.data.panels import Panel
from vsmd.forecasting.evaluation import quantiles

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def outlook(predictor: Any, panel: Panel, levels: Sequence[float] = LEVELS, num_samples: int = 100) -> pd.DataFrame:
    """Quantiles of any predictor's forecast of the steps after a panel's end, trained on `panel.train` or other data.

    levels: of the quantiles, in (0, 1). num_samples: from which they are taken.
    Rows are time stamps, columns (series, level). Raises ValueError for other levels and for features of the panel
    that end with it.
    """
    if not len(levels) or not all(0 < level < 1 for level in levels):
        raise ValueError(f"levels={messages.told(levels)}: must be between 0 and 1")
    (drawn,) = predictor.predict(panel.future, num_samples=checks.positive_int("num_samples", num_samples))
    return of_paths(drawn.samples, panel, levels)


def of_paths(paths: Any, panel: Panel, levels: Sequence[float] = LEVELS) -> pd.DataFrame:
    """The `outlook` from sampled paths (paths, horizon, d), or (paths, horizon) if d = 1, of what follows a panel."""
    samples = np.reshape(paths, (1, len(paths), -1, panel.dim))
    table = np.moveaxis(quantiles(samples, levels)[:, 0], 0, -1)  # (horizon, d, levels)
    index = pd.DatetimeIndex(panel.dates(panel.values.shape[1], len(table)), name="time")
    columns = pd.MultiIndex.from_product([list(panel.names), list(levels)], names=["series", "level"])
    return pd.DataFrame(table.reshape(len(table), -1), index, columns)


def fan_chart(table: pd.DataFrame, panel: Panel, series: str | None = None, past: int | None = None) -> Any:
    """Matplotlib's axes with the end of one series of a panel and the fan of its `outlook`.

    series: its name, by default the first. past: number of steps shown before, by default three horizons.
    """
    from matplotlib import pyplot

    series = panel.names[0] if series is None else series
    if series not in panel.names:
        raise ValueError(f"series={messages.told(series)}: must be one of {checks.some(panel.names)}")
    steps = panel.values.shape[1]
    first = max(0, steps - (3 * len(table) if past is None else checks.positive_int("past", past)))
    axes, fan = pyplot.subplots(layout="constrained")[1], table[series]
    axes.plot(panel.dates(first, steps - first), panel.values[panel.names.index(series), first:], "k")
    levels = sorted(fan.columns)
    for low, high in zip(levels[: len(levels) // 2], reversed(levels)):
        axes.fill_between(fan.index, fan[low], fan[high], color="C0", alpha=0.25, lw=0, label=f"{low:g} – {high:g}")
    if len(levels) % 2:
        axes.plot(fan.index, fan[levels[len(levels) // 2]], "C0", label=f"{levels[len(levels) // 2]:g}")
    axes.set(title=series, xlabel="time")
    axes.legend(title="quantiles")
    return axes
