"""Tables, the picture and the advice of the study of real points, from its stored rows, however few there are."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from repro.reports import families
from repro.reports.families import BEHIND, FIRST, KINDS, LEVEL, by_seed
from repro.reports.style import looks, plain_log
from repro.reports.summary import mean_std, mean_std_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MEASURES = ("sw2", "energy", "auc", "tail_error")
OTHERS = ("nll", "memorised", "train_seconds")
PREDICTORS = {
    "anisotropy": "anisotropy", "dim": "dimensions", "train": "training points",
    "non_gaussianity": "non-Gaussianity of the leading axes", "prior_kl": "prior-KL of plain CLD at β = 5",
}  # fmt: skip
COPIES = 0.6  # share of samples nearer to training points from which on they are taken for copies
SURE = 0.05  # p of a rank correlation that is spoken of


def reported(rows: pd.DataFrame, evaluations: Sequence[int]) -> pd.DataFrame:
    """Rows of test parts, named (`families.named`), with x_sw2, …: each measure over its floor."""
    needed = ["part", "selected", *OTHERS, *(f"{m}{end}" for m in MEASURES for end in ("", "_floor"))]
    rows = families.with_columns(rows, needed)
    rows = families.named(rows[rows.part == "test"], evaluations)
    return rows.assign(**{f"x_{m}": rows[m] / rows[f"{m}_floor"] for m in MEASURES})


def _without_number(name: str) -> str:
    """ "mixture-16": a mixture, on every set with as many components as validation chose."""
    return re.sub(r"-[\d.]+$", "", name)


def complete(rows: pd.DataFrame) -> list[str]:
    """Sets that have as many rows by method, evaluations and seed as any has: the others are on their way."""
    if rows.empty:
        return []
    different = rows[["dataset", "evaluations", "seed"]].assign(name=rows.name.map(_without_number)).drop_duplicates()
    counts = different.dataset.value_counts().to_dict()
    return sorted(str(name) for name, count in counts.items() if count == max(counts.values()))


def choices(best: pd.DataFrame) -> pd.DataFrame:
    """What was chosen on validation parts, a row a set and method: setting and mean log measure over its floor."""
    table = families.named(best.replace("", math.nan).assign(nfe=0), [])
    order = table.assign(place=table.kind.map(KINDS.index)).sort_values(["dataset", "place", "gap"])
    return order[["dataset", "name", "setting", "gap", "selected"]].assign(
        selected=order.selected.map({True: "chosen", False: ""})
    )


def of_set(rows: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The table of a set: measures over their floors by method and evaluations, mean ± std over seeds."""
    rows = rows[rows.dataset == dataset]
    rows = rows.assign(name=rows.name.where(rows.selected != 1, rows.name + " (chosen)"))
    rows = rows.assign(place=rows.kind.map(KINDS.index)).sort_values(["place", "name", "evaluations"])
    columns = [f"x_{m}" for m in MEASURES] + list(OTHERS)
    table = mean_std(rows, ["name", "setting", "evaluations"], columns)
    return table.rename(columns={f"x_{m}": m for m in MEASURES}).replace(r"^– \(0 of \d+ finite\)$", "–", regex=True)


def summary(rows: pd.DataFrame, at: int) -> pd.DataFrame:
    """Sliced W2 over its floor after `at` evaluations, a row a set: the family's choice, peers, plain rows."""
    rows = rows[rows.evaluations.isin([0, at]) & ((rows.kind != "family") | (rows.selected == 1))]
    rows = rows.assign(column=rows.name.map(_without_number).where(rows.kind != "family", "chosen"))
    if rows.empty:
        return rows[["dataset"]]
    table = mean_std(rows.sort_values("dataset"), ["dataset", "column"], "x_sw2")
    wide = families.wide(table, ["dataset"], "column", "x_sw2")
    order = ["dataset", "chosen", *families.PEERS, *sorted({*wide.columns} - {"real"}), "real"]
    return wide[[c for c in dict.fromkeys(order) if c in wide.columns]]


def duels(rows: pd.DataFrame, at: int) -> pd.DataFrame:
    """A row a set: the family's choice against the best peer and what needs no network, sliced W2 over the floor.

    standing: first, level or behind (Welch, 95 %). gain: log of the peer's mean over ours.
    """
    import pandas as pd

    lines = []
    for dataset, part in rows.groupby("dataset"):
        part = part[part.x_sw2.notna()]
        ours, peers = (part[m & (part.evaluations == at)] for m in (part.selected == 1, part.kind == "peer"))
        if ours.empty or peers.empty:
            continue
        peer = peers.groupby("name").sw2.mean().idxmin()
        sides = ours, peers[peers.name == peer]
        values, theirs = (by_seed(side, "x_sw2") for side in sides)
        line: dict[str, Any] = {"dataset": dataset, "chosen": ours.name.iloc[0], "ours": mean_std_text(values)}
        standing = families.standing(*(by_seed(side, "sw2") for side in sides))  # as the claims' rule has it
        line |= {"peer": peer, "theirs": mean_std_text(theirs), "standing": standing}
        line |= {"gain": math.log(_mean(theirs) / _mean(values)), "setting": ours.setting.iloc[0]}
        line |= {"copies": _mean(by_seed(ours, "memorised")), **_plain(part, min(_mean(values), _mean(theirs)))}
        lines.append(line)
    return pd.DataFrame(lines)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _plain(part: pd.DataFrame, best: float) -> dict[str, Any]:
    """The best row without a network that makes no copies, and whether it is as good as the best with one."""
    means = part[part.kind == "plain"].groupby("name")[["x_sw2", "memorised"]].mean()
    means = means[means.memorised <= COPIES]
    if means.empty:
        return {"plain": "", "without": math.nan, "enough": False}
    name = str(means.x_sw2.idxmin())
    return {"plain": name, "without": float(means.x_sw2[name]), "enough": bool(means.x_sw2[name] <= best)}


def predictors(table: pd.DataFrame, laws: pd.DataFrame) -> pd.DataFrame:
    """Rank correlations over sets of the family's gain (`duels`) with what is known before training (`point_laws`).

    n: sets; rho and p are empty where there are fewer than four, or a column does not vary.
    """
    import pandas as pd
    from scipy import stats

    columns = ["dataset", *PREDICTORS]
    if table.empty or laws.empty:
        joined = pd.DataFrame(columns=[*columns, "gain"], dtype=float)
    else:
        joined = table[["dataset", "gain"]].merge(laws[columns], on="dataset")
    lines = []
    for column, words in PREDICTORS.items():
        rho = p = math.nan
        if len(joined) >= 4 and joined[column].nunique() > 1 and joined.gain.nunique() > 1:
            rho, p = map(float, stats.spearmanr(joined[column], joined.gain))
        lines.append({"known before training": words, "rho": rho, "p": p, "n": len(joined)})
    return pd.DataFrame(lines)


def decision(rows: pd.DataFrame) -> Figure:
    """Mean rank of the trained methods, and geometric mean of sliced W2 over its floor, against evaluations.

    Over the sets that are `complete`; what needs no network is a line across.
    """
    import numpy as np
    from matplotlib import pyplot as plt

    sets = complete(rows)
    rows = rows[rows.dataset.isin(sets) & rows.x_sw2.notna()]
    rows = rows.assign(log=np.log(rows.x_sw2), name=rows.name.map(_without_number))
    means = rows.groupby(["kind", "dataset", "name", "evaluations"], as_index=False).log.mean()
    trained = means[means.kind.isin(["family", "peer"])]
    trained = trained.assign(rank=trained.groupby(["dataset", "evaluations"]).log.rank())
    chosen = rows[rows.selected == 1].groupby(["dataset", "evaluations"]).name.first().reset_index()
    chosen = chosen.merge(trained, on=["dataset", "evaluations", "name"])
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8))
    lines = [(name, part) for name, part in trained.groupby("name")] + [("the family's choice", chosen)]
    tints = looks([name for name, _ in lines])
    for name in families.PEERS:
        if name in tints:
            tints[name] |= {"ls": "--", "marker": "s"}
    tints["the family's choice"] |= {"color": "k", "ls": "-", "marker": "o", "lw": 2.6}
    for name, part in lines:
        at = part.groupby("evaluations")
        axes[0].plot(at["rank"].mean(), label=name, **{"ms": 4} | tints[name])
        axes[1].plot(np.exp(at.log.mean()), label=name, **{"ms": 4} | tints[name])
    for (name, part), dashes in zip(means[means.kind == "plain"].groupby("name"), (":", "--", "-.", (0, (1, 4)))):
        axes[1].axhline(math.exp(part.log.mean()), color="0.5", ls=dashes, lw=1, label=name)
    title = f"{len(sets)} set{'s' * (len(sets) != 1)}"
    axes[0].set(xlabel="network evaluations", ylabel="mean rank in sliced W2, 1 is best", title=title)
    axes[1].set(xlabel="network evaluations", ylabel="sliced W2 over the floor", title=f"{title}, geometric mean")
    plain_log(axes[0].xaxis, axes[1].xaxis, axes[1].yaxis)
    axes[1].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    return figure


def advice(table: pd.DataFrame, predicted: pd.DataFrame, at: int) -> pd.DataFrame:
    """The tables in words: when to take what, with the cases where it is something else; columns case and advice."""
    import pandas as pd

    lines: list[tuple[str, str]] = []
    if table.empty:
        lines.append(("no set yet", "rows are to come: nothing is advised before they are there"))
        return pd.DataFrame(lines, columns=["case", "advice"])
    known = table[table.standing.isin([FIRST, LEVEL, BEHIND])]
    counts = ", ".join(f"{case} on {int((known.standing == case).sum())}" for case in (FIRST, LEVEL, BEHIND))
    told = f"chosen on validation data the family is {counts} of {len(known)} sets, {at} evaluations"
    lines.append(("in all", "one seed decides nothing" if known.empty else told))
    for case in (FIRST, LEVEL):
        for chosen, part in known[known.standing == case].groupby("chosen"):
            setting = f"; {part.setting.iloc[0]}" if part.setting.nunique() == 1 else ""
            lines.append((f"like {_names(part)}", f"{chosen}: {case}{setting}"))
    for peer, part in known[known.standing == BEHIND].groupby("peer"):
        by = math.expm1(-part.gain.mean())
        lines.append((f"like {_names(part)}", f"take something else: {peer}; ours is {by:.0%} farther in sliced W2"))
    if len(simple := table[table.enough]):
        plain = ", ".join(sorted(set(simple.plain)))
        lines.append((f"like {_names(simple)}", f"take something else: {plain} is as near without any network"))
    if len(copied := table[table.copies > COPIES]):
        lines.append((f"like {_names(copied)}", "samples are nearer to training points than fresh draws: train less"))
    sure = predicted[predicted.p < SURE]
    for row in sure.to_dict("records"):
        sense = "more" if row["rho"] > 0 else "less"
        told = f"the family gains {sense} (rank correlation {row['rho']:.2f}, n = {row['n']})"
        lines.append((f"the larger: {row['known before training']}", told))
    if sure.empty:
        told = f"no rank correlation is clear of chance (n = {int(predicted.n.max())}): validation must decide"
        lines.append(("before training", told))
    return pd.DataFrame(lines, columns=["case", "advice"])


def _names(table: pd.DataFrame) -> str:
    return ", ".join(sorted(table.dataset))
