"""Tables of the study of units and clocks: what a linear variational score leaves over, from its stored rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from repro.reports import families
from repro.reports.families import KINDS, VARIATIONAL, by_seed
from repro.reports.summary import mean_std, mean_std_text

if TYPE_CHECKING:
    import pandas as pd

PATHS = ("bend_x", "bend_y", "path_energy", "net_bend_x", "net_bend_y", "net_path_energy")


def reported(rows: pd.DataFrame, datasets: Sequence[str], evaluations: Sequence[int]) -> pd.DataFrame:
    """Rows of some sets, named (`families.named`), with x_floor: PMF-RMSE over that of real data."""
    rows = families.with_columns(rows, ["dataset", "pmf_rmse", *PATHS])
    rows = families.named(rows[rows.dataset.isin(datasets)], evaluations)
    rows = rows.assign(prior=rows.prior.where(rows.kind != "peer", rows.prior.fillna("gaussian")))
    floor = rows[rows.kind == "real"].groupby("dataset").pmf_rmse.mean()
    rows = rows.assign(x_floor=rows.pmf_rmse / rows.dataset.map(floor), place=rows.kind.map(KINDS.index))
    return rows.sort_values(["dataset", "place", "name", "units", "prior", "evaluations"])


def few(rows: pd.DataFrame) -> pd.DataFrame:
    """PMF-RMSE over the floor by set, method, units and prior at its best setting: a column a number of evaluations.

    What needs no network stands in a column 0.
    """
    rows = rows[rows.kind != "real"].fillna({"units": "", "prior": ""})
    table = mean_std(rows, ["dataset", "name", "units", "prior", "setting", "evaluations"], "x_floor")
    out = families.wide(table, ["dataset", "name", "units", "prior", "setting"], "evaluations", "x_floor")
    return out.fillna("")


def paths(rows: pd.DataFrame) -> pd.DataFrame:
    """Bend on both axes and path energy, in the data's units and in the network's (net_…), of what has paths."""
    keys = ["dataset", "name", "components", "units", "prior"]
    rows = families.with_columns(rows, keys)
    rows = rows[rows.bend_x.notna()].drop_duplicates([*keys, "seed"])
    return mean_std(rows, keys, list(PATHS)).fillna("")


def left_over(rows: pd.DataFrame) -> pd.DataFrame:
    """What A gains: the best row with a variational score beside CLD on standardised data, from the same prior.

    Best is least in the mean here, which favours it. standing: of CLD (Welch, 95 %).
    """
    import pandas as pd

    lines = []
    for (dataset, prior, n), part in rows[rows.kind == "family"].groupby(["dataset", "prior", "evaluations"]):
        part = part[part.x_floor.notna()]
        plain = part[(part.name == "CLD") & (part.units == "standardised")]
        other = part[part.method.isin(VARIATIONAL)]
        if plain.empty or other.empty:
            continue
        means = other.groupby(["name", "units"], as_index=False).x_floor.mean()
        best, units = means.loc[means.x_floor.idxmin(), ["name", "units"]]
        sides = [by_seed(side, "x_floor") for side in (plain, other[(other.name == best) & (other.units == units)])]
        line: dict[str, Any] = {"dataset": dataset, "prior": prior, "evaluations": n, "best with A": f"{best}, {units}"}
        line |= {"plain CLD": mean_std_text(sides[0]), "with A": mean_std_text(sides[1])}
        ratio = math.fsum(sides[0]) / len(sides[0]) / (math.fsum(sides[1]) / len(sides[1]))
        lines.append(line | {"ratio": ratio, "CLD is": families.standing(*sides)})
    return pd.DataFrame(lines)
