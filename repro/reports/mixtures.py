"""Tables of mixtures as variational scores: where they end, the plans that are known, what a step needs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from repro.reports.families import with_columns
from repro.reports.summary import mean_std

if TYPE_CHECKING:
    import pandas as pd

PARTS = ["dataset", "grid_power", "nfe"]
SCORE = "mixture"


def ends(rows: pd.DataFrame) -> pd.DataFrame:
    """KL of a_T from the prior, and how much of its place a point keeps, by set and number of components."""
    rows = rows.sort_values(["dataset", "components"])
    return mean_std(rows, ["dataset", "components"], ["end_kl", "moments_kl", "correlation", "seconds"])


def plans(rows: pd.DataFrame) -> pd.DataFrame:
    """cBW2-UVP in per cent of the known Schrödinger plans, beside that of two draws of one law and of independence."""
    rows = rows.sort_values(["dim", "method", "beta", "components"])
    return mean_std(rows, ["dim", "method", "beta", "components"], ["cbw2_uvp", "floor", "independent", "ess"])


def parts(rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """PMF-RMSE, mean over seeds, by set, grid, evaluations and parts of a step; and the parts chosen by it.

    Chosen is what has the least mean log over sets and evaluations, each with the grid that is its best on all of them.
    """
    means = rows.groupby([*PARTS, "parts"], as_index=False)[["pmf_rmse", "seconds"]].mean()
    finite = means.pmf_rmse.map(lambda v: math.log(v) if v > 0 else math.inf)
    gaps = means.assign(gap=finite).groupby(["parts", "grid_power"]).gap.mean().groupby("parts").min()
    wide = means.assign(text=means.pmf_rmse.map("{:.3g}".format)).pivot(index=PARTS, columns="parts", values="text")
    wide = wide.reset_index().rename(columns=str)
    time = means.groupby("parts").seconds.mean()
    times = {str(p): f"time × {v / time.iloc[0]:.2f}" for p, v in time.items()}
    wide.loc[len(wide)] = {**dict.fromkeys(PARTS, ""), **times}
    return wide, int(gaps.idxmin())


def curves(in_units: pd.DataFrame) -> pd.DataFrame:
    """Rows of the study of units that a picture shows: mixture scores, and flow matching and EDM from a Gaussian."""
    rows = with_columns(in_units, ["components"])
    plain = (rows.kind == "peer") & (rows.prior == "gaussian")
    rows = rows[(plain | (rows.a_mode == SCORE)) & (rows.evaluations > 0)]
    count = rows.components.map(lambda n: f", {n:.0f} components" if n == n else "")
    return rows.assign(label=rows.name + count + rows.units.map(lambda u: f", {u}"))


def high(rows: pd.DataFrame) -> pd.DataFrame:
    """64 dimensions: whitened W2 in the planes and along the rest, from a Gaussian."""
    rows = with_columns(rows, ["components", "full", "prior", "a_mode", "nfe", "solver"])
    rows = rows[rows.prior.isna() | (rows.prior == "gaussian")]
    return mean_std(
        rows, ["method", "a_mode", "components", "full", "solver", "nfe"], ["block_w2", "rest_w2", "train_seconds"]
    )
