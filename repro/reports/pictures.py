"""Tables and pictures of the study of images (notebook 04), from its stored rows: the family beside its peers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from repro.reports import families
from repro.reports.families import KINDS, by_seed
from repro.reports.style import looks, plain_log
from repro.reports.summary import mean_std, mean_std_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

METRIC = "FD-EffNet"
METRICS = (METRIC, "FD-EffNet, cleared", "haze", "KID")
FLAT = 0.02  # a curve whose last part falls by a smaller share has flattened


def reported(rows: pd.DataFrame, evaluations: Sequence[int]) -> pd.DataFrame:
    """Rows of test parts, named (`families.named`), those on the way among them; last: of the training's end."""
    needed = ["part", "basis", "metric", "value", "floor", "images_seen", "train_steps"]
    rows = families.with_columns(rows, needed)
    rows = families.named(rows[rows.part == "test"], evaluations, longest=False)
    ends = rows.groupby(["dataset", "method"]).train_steps.transform("max")
    return rows.assign(last=rows.train_steps == ends, place=rows.kind.map(KINDS.index))


def ends(rows: pd.DataFrame) -> pd.DataFrame:
    """Every method at its best setting: each metric by set and evaluations, mean ± std over seeds, real images last."""
    import pandas as pd

    rows = rows[rows["last"]].fillna({"basis": ""})
    if rows.empty:
        return rows[["dataset", "name"]]
    keys = ["dataset", "name", "basis", "setting", "evaluations"]
    rows = rows.sort_values(["dataset", "place", "name", "evaluations"])
    wide = families.wide(mean_std(rows, [*keys, "metric"], "value"), keys, "metric", "value")
    floors = rows.groupby(["dataset", "metric"]).floor.mean().unstack().reset_index().assign(name="test images")
    table = pd.concat([wide, floors], ignore_index=True).sort_values("dataset", kind="stable")
    return table[[*keys, *(m for m in METRICS if m in table.columns)]].fillna("").reset_index(drop=True)


def flattened(rows: pd.DataFrame) -> pd.DataFrame:
    """FD-EffNet at the last two looks of each training, the share by which it fell, and whether that is little."""
    import pandas as pd

    lines = []
    curve = rows[(rows.metric == METRIC) & rows.value.notna()]
    for (dataset, name), part in curve.groupby(["dataset", "name"], sort=False):
        part = part[part.evaluations == _looked_at(part)]
        steps = sorted(part.train_steps.unique())
        if len(steps) < 2:
            continue
        before, after = (by_seed(part[part.train_steps == step], "value") for step in steps[-2:])
        fell = 1 - math.fsum(after) / len(after) / (math.fsum(before) / len(before))
        seen = part[part.train_steps == steps[-1]].images_seen.iloc[0]
        line = {"dataset": dataset, "name": name, "images_seen": seen, "the look before": mean_std_text(before)}
        lines.append(line | {"last": mean_std_text(after), "fell by": fell, "flat": fell < FLAT})
    return pd.DataFrame(lines)


def _looked_at(part: pd.DataFrame) -> int:
    """The number of evaluations that a training is looked at by on its way."""
    return int(part[part.train_steps == part.train_steps.min()].evaluations.iloc[0])


def standings(rows: pd.DataFrame, at: int) -> pd.DataFrame:
    """A row a set: the family's best method against the best peer after `at` evaluations, Welch's test at 95 %.

    Best is least in the mean here, for both sides alike. standing: of the family.
    """
    import pandas as pd

    lines = []
    part = rows[rows["last"] & (rows.metric == METRIC) & (rows.evaluations == at) & rows.value.notna()]
    for dataset, both in part.groupby("dataset"):
        sides = [both[both.kind == kind] for kind in ("family", "peer")]
        if any(side.empty for side in sides):
            continue
        names = [str(side.groupby("name").value.mean().idxmin()) for side in sides]
        ours, theirs = (by_seed(side[side.name == name], "value") for side, name in zip(sides, names, strict=True))
        line = {"dataset": dataset, "family": names[0], "ours": mean_std_text(ours), "peer": names[1]}
        lines.append(line | {"theirs": mean_std_text(theirs), "standing": families.standing(ours, theirs)})
    return pd.DataFrame(lines)


def curves(rows: pd.DataFrame) -> Figure:
    """FD-EffNet against images seen, a panel a set: mean over seeds, real images dotted."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    rows = rows[(rows.metric == METRIC) & rows.value.notna()]
    datasets, names = list(dict.fromkeys(rows.dataset)), list(dict.fromkeys(rows.sort_values("place").name))
    fig, axes = plt.subplots(1, len(datasets), figsize=(3.6 * len(datasets) + 1.8, 3.1), squeeze=False)
    styles = looks(names)
    for ax, dataset in zip(axes[0], datasets, strict=True):
        for name in names:
            part = rows[(rows.dataset == dataset) & (rows.name == name)]
            if len(part):
                part = part[part.evaluations == _looked_at(part)]
                ax.plot(part.groupby("images_seen").value.mean(), label=name, ms=4, **styles[name])
        ax.axhline(rows[rows.dataset == dataset].floor.mean(), color="0.5", lw=1, ls=":", label="test images")
        ax.set(title=dataset, xlabel="images seen", ylabel=METRIC)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        plain_log(ax.yaxis)
    handles = dict(zip(*reversed(axes[0][-1].get_legend_handles_labels()), strict=True))
    axes[0][-1].legend(handles.values(), handles, loc="upper left", bbox_to_anchor=(1, 1))
    return fig
