"""Rows of comparisons, whatever they measure: what a method is called, its setting in words, and what it is held to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro.reports import claims

if TYPE_CHECKING:
    import pandas as pd

    from repro.grid import Run, Store

PEERS = ("i-cfm", "ot-cfm", "edm")
VARIATIONAL = ("VSDM", "VSCLD", "VSULD")
KINDS = ("family", "peer", "plain", "real")
SETTING = ("units", "components", "beta", "prior", "solver", "grid_power", "sigma_max", "learning_rate", "weighting")
COLUMNS = ("dataset", "method", "a_mode", "schedule", *SETTING, "nfe", "seed", "train_steps")
FIRST, LEVEL, BEHIND, ONE_SEED = "first", "level", "behind", "one seed"
_WORDS = {
    "components": "{:g} components",
    "beta": "β = {:g}", "prior": "{} prior", "grid_power": "grid {:g}", "sigma_max": "σ to {:g}",
    "learning_rate": "rate {:g}", "weighting": "weight {}",
}  # fmt: skip
NONE_OF_THE_SIX = {"steered": "steered {}", "mixture": "{} with a mixture score"}


def stored(store: Store, table: str, runs: Iterable[Run] | None = None) -> pd.DataFrame:
    """All rows of a table, or those of some runs; none where there is no such table yet: the notebook waits for it."""
    import pandas as pd

    from repro.grid.store import READ

    READ.add(table)  # what it depends on, there or not
    try:
        return store.table(table, runs)
    except FileNotFoundError:
        return pd.DataFrame()


def with_columns(rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Rows with these columns too, empty where a table has left them out."""
    return rows.reindex(columns=[*rows.columns, *(c for c in columns if c not in rows.columns)])


def named(rows: pd.DataFrame, evaluations: Sequence[int], longest: bool = True) -> pd.DataFrame:
    """Rows with the columns name ("steered VSCLD"), kind (of `KINDS`), setting (words) and evaluations.

    evaluations: of those the least that a row's number of network calls fits into, as EDM and Heun may stay below one;
        0 of what needs no network.
    longest: of a trained method's rows on a set those with the longest training alone (default), or all.
    Columns that a table leaves out because they are empty are there.
    """
    rows = with_columns(rows, COLUMNS)
    if longest:
        most = rows.groupby(["dataset", "method"]).train_steps.transform("max")
        rows = rows[rows.train_steps.isna() | (rows.train_steps == most)]
    records = rows.to_dict("records")
    return rows.assign(
        name=[_name(row) for row in records],
        kind=[_kind(row) for row in records],
        setting=[_setting(row) for row in records],
        evaluations=[next((n for n in evaluations if row["nfe"] <= n), row["nfe"]) if row["nfe"] > 0 else 0
                     for row in records],
    )  # fmt: skip


def _kind(row: Mapping[Any, Any]) -> str:
    if row["method"] == "real":
        return "real"
    return "peer" if row["method"] in PEERS else "family" if row["a_mode"] == row["a_mode"] else "plain"


def _name(row: Mapping[Any, Any]) -> str:
    if row["a_mode"] in NONE_OF_THE_SIX:
        return NONE_OF_THE_SIX[row["a_mode"]].format(row["method"])
    return f"{row['method']} (VP)" if (row["method"], row["schedule"]) == ("SGM", "vp") else str(row["method"])


def _setting(row: Mapping[Any, Any]) -> str:
    return ", ".join(_WORDS.get(c, "{}").format(row[c]) for c in SETTING if row[c] == row[c])


def standing(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Of values a seed, where less is better: "first", "level" or "behind" by Welch's test at 95 %, or "one seed"."""
    if min(len(ours), len(theirs)) < 2:
        return ONE_SEED
    outcome = claims.compare(list(ours), list(theirs), "<=", 1.0, 0.95)
    return {claims.HOLDS: FIRST, claims.FAILS: BEHIND}.get(outcome, LEVEL)


def by_seed(rows: pd.DataFrame, measure: str) -> list[float]:
    """Values of a measure, one a seed."""
    return claims.per_seed(rows, {}, measure)


def wide(table: pd.DataFrame, index: Sequence[str], columns: str, values: str) -> pd.DataFrame:
    """A table of "mean ± std (n)" with a column a value of `columns`, named by it; rows in order of appearance."""
    order = table[list(index)].drop_duplicates()
    out = table.pivot(index=list(index), columns=columns, values=values).reset_index()
    out.columns = [str(c) for c in out.columns]
    return order.merge(out, on=list(index))
