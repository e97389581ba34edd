"""Which settings each method of the study `points` gets on each set: candidates on its validation part, and the best.

The family's candidates: each method with beta 2, 5 and 10 on whitened and standardised data, both weightings of the
loss, two learning rates, and every prior and grid that a trained model can be drawn with. Peers choose their learning
rate, source, units and solver, mixtures their components, resampling its noise. By sliced W2 and energy distance over
their floors at 10 and 20 evaluations; no look at a test part.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from repro.grid.runs import Run, product
from repro.studies import edm, flow_matching
from repro.studies.plans import line_of
from repro.studies.points import COLUMNS, SETTING
from repro.studies.unit_choices import METHODS, settings_of

Row = dict[str, Any]

BETAS, RATES, WEIGHTINGS = (2, 5, 10), (1e-3, 4e-3), ("score", "unit")
UNITS = ("whitened", "standardised")
SEED = 7  # of the runs that choose; no reported run has it
EVALUATIONS = [10, 20]
COMPONENTS, NOISES = (1, 4, 16, 64), (0.05, 0.1, 0.2, 0.4)
MEASURES = ("sw2", "energy")
BY = ("dataset", "method", "units", "a_mode")


def family(dataset: str, steps: int) -> list[Run]:
    """Every candidate of the six methods and of steering, on the validation part."""
    plan = [
        {"prior": prior, "solver": "exponential", "evaluations": EVALUATIONS, "denoise": clean, "grid_power": 2}
        for prior in ("moments", "mixture") for clean in (True, False)
    ]  # fmt: skip
    return [
        run
        for settings in METHODS.values()
        for run in product(
            "repro.studies.points:run", dataset=dataset, units=UNITS, beta=BETAS, weighting=WEIGHTINGS,
            learning_rate=RATES, seed=SEED, steps=steps, plan=[plan], **settings,
        )
    ]  # fmt: skip


def peers(dataset: str, steps: int) -> list[Run]:
    """Every candidate of flow matching and EDM, and of what needs no network, on the validation part."""
    common: Row = {"dataset": dataset, "seed": SEED}
    plan = [{"solver": solver, "evaluations": EVALUATIONS} for solver in ("ab2", "midpoint", "heun")]
    return [
        *product("repro.studies.points:run_flow", method=list(flow_matching.METHODS), source=flow_matching.SOURCES,
                 learning_rate=RATES, plan=[plan], steps=steps, **common),
        *product("repro.studies.points:run_edm", method=list(edm.SCALINGS), learning_rate=RATES,
                 evaluations=[EVALUATIONS], steps=steps, **common),
        *product("repro.studies.points:run_plain", method="mixture", value=COMPONENTS, **common),
        *product("repro.studies.points:run_plain", method="resampled", value=NOISES, **common),
    ]  # fmt: skip


def chosen(rows: pd.DataFrame, by: tuple[str, ...] = BY) -> pd.DataFrame:
    """Of rows of validation parts the setting of each group with the least mean log measure over its floor.

    A setting with a sample that diverged, or a row missing, cannot be chosen. EDM takes an odd number of evaluations,
    what needs no network none.
    """
    asked = [0, *EVALUATIONS, *(n - 1 for n in EVALUATIONS)]
    rows = rows.reindex(columns=list(COLUMNS))  # a table has no columns that are empty throughout
    rows = rows[(rows.part == "validation") & rows.nfe.isin(asked)]
    gap = sum((rows[m] / rows[f"{m}_floor"]).map(lambda v: math.log(v) if v > 0 else math.nan) for m in MEASURES)
    text = ["units", "basis", "a_mode", "prior", "weighting", "solver"]
    rows = rows.assign(gap=gap, **{name: rows[name].fillna("") for name in text})
    groups = rows.groupby(["dataset", *SETTING], dropna=False)
    scores = groups.gap.agg(lambda v: v.mean() if v.notna().all() else math.inf).rename("gap")
    complete = (groups.size() >= len(EVALUATIONS)) | (groups.nfe.max() == 0)
    table = scores[complete].reset_index()
    best = table.groupby(list(by), dropna=False).gap.idxmin()
    return table.loc[best.tolist()].reset_index(drop=True)


def final(best: pd.DataFrame, seeds: list[int], steps: int) -> list[Run]:
    """Each row of `best` on its set's test part, with more numbers of evaluations."""
    evaluations, runs = [5, 10, 20, 50], list[Run]()
    for row in best.to_dict("records"):
        common: Row = {"dataset": row["dataset"], "seed": seeds, "part": "test"}
        trained: Row = {**common, "steps": steps, "learning_rate": row["learning_rate"]}
        name = row["method"] if row["units"] in ("raw", "") else f"{row['method']}-{row['units']}"
        if name in flow_matching.METHODS:
            runs += product(
                "repro.studies.points:run_flow", method=name, source=row["prior"] or "gaussian",
                plan=[[{"solver": row["solver"], "evaluations": evaluations}]], **trained,
            )  # fmt: skip
        elif name in edm.SCALINGS:
            runs += product("repro.studies.points:run_edm", method=name, evaluations=[evaluations], **trained)
        elif "-" in row["method"]:
            plain, _, value = row["method"].partition("-")
            runs += product("repro.studies.points:run_plain", method=plain, value=float(value), **common)
        else:
            runs += product(
                "repro.studies.points:run", units=row["units"], beta=row["beta"], weighting=row["weighting"],
                plan=[[line_of(row, evaluations)]], likelihood=True, **settings_of(row["method"], row["a_mode"]),
                **trained,
            )  # fmt: skip
    for dataset in best.dataset.unique():
        runs += product("repro.studies.points:run_plain", dataset=dataset, method=["gaussian", "real"], seed=seeds,
                        part="test")  # fmt: skip
    return runs
