"""Which learning rate, stages, grid and noise each simulated bridge gets: candidates on development sets; the study.

From a usual setting one thing is changed at a time; the best change of each is then taken (`chosen`), by mean log W2 at
the end of equal training steps. The family and flow matching had their choices in `choices` and `unit_choices`.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from repro.grid.pool import execute
from repro.grid.runs import Result, Run, product
from repro.grid.store import Store
from repro.studies import contestants, cost
from repro.studies.units import DEVELOPMENT

Row = dict[str, Any]

SEED = 7  # of the runs that choose; no reported run has it
SETTINGS = ("learning_rate", "stages", "grid", "sigma")
USUAL: Row = {"learning_rate": 2e-3, "stages": 12, "grid": 20, "sigma": 1.0}
OTHERS: dict[str, list[float]] = {"learning_rate": [1e-3, 4e-3], "stages": [6, 24], "grid": [40], "sigma": [0.5]}
PLANS: dict[str, Row] = {  # what is run; tried: steps of a run that chooses, 0: `usual` settings
    "smoke": {
        "methods": ["steered", "mSB"], "datasets": ["8gaussians"], "seeds": [0], "tried": 0, "others": [],
        "usual": USUAL | {"stages": 2, "grid": 5}, "steps": 6, "bridge_steps": 8, "samples": 500, "checkpoints": 2,
        "evaluations": [],
    },
    "quick": {
        "methods": ["VSCLD", "steered", "OT-CFM-standardised", "mSB", "DSBM-standardised"], "datasets": ["spiral-8Y"],
        "seeds": [0], "tried": 0, "others": [], "usual": USUAL | {"stages": 2}, "steps": 100, "bridge_steps": 120,
        "samples": 1_000, "checkpoints": 2, "evaluations": [10],
    },
    "reduced": {
        "methods": ["VSCLD", "steered", "torchcfm OT-CFM-standardised", "mSB", "mSB-standardised"],
        "datasets": list(cost.DATASETS), "seeds": [0, 1, 2], "tried": 2_400, "others": ["learning_rate"],
        "steps": 3_000, "bridge_steps": 4_800, "samples": 20_000, "checkpoints": 6, "evaluations": [5, 10],
    },
    "whole": {
        "methods": [*contestants.FAMILY, "OT-CFM-standardised", "torchcfm OT-CFM-standardised",
                    "torchcfm SB-CFM-standardised", *contestants.BRIDGES],
        "datasets": list(cost.DATASETS), "seeds": [0, 1, 2], "tried": 6_000, "others": list(OTHERS), "steps": 6_000,
        "bridge_steps": 12_000, "samples": 50_000, "checkpoints": 8, "evaluations": [4, 5, 8, 10, 15, 30, 60, 100],
    },
}  # fmt: skip
COLUMNS = ("dataset", "method", "seed", *SETTINGS, "train_steps", "train_seconds", "w2", "pmf_rmse")


def candidate(
    dataset: str, method: str, seed: int, learning_rate: float, stages: int, grid: int, sigma: float, steps: int,
    samples: int,
) -> Result:  # fmt: skip
    """One setting of a bridge on a development set: a row of `cost_choices`, by as many calls as it has steps."""
    setting = {"learning_rate": learning_rate, "stages": stages, "grid": grid, "sigma": sigma}
    (row,) = cost.curve(dataset, method, seed, ("chain", grid), [], steps, 1, samples, training(method, setting), grid)
    return Result({"cost_choices": [{name: (row | setting).get(name) for name in COLUMNS}]})


def training(method: str, setting: Row) -> Row:
    """The arguments of a bridge's training among a setting's."""
    names = ["learning_rate", "stages", *(["sigma"] if contestants.BRIDGES[method].get("matching") else [])]
    return {name: setting[name] for name in names}


def candidates(methods: list[str], steps: int, samples: int, others: list[str]) -> list[Run]:
    """The usual setting of each method, and every one that differs from it in one of `others`."""
    runs = []
    for method in methods:
        settings = [USUAL]
        for name in others:
            if name != "sigma" or contestants.BRIDGES[method].get("matching"):
                settings += [USUAL | {name: value} for value in OTHERS[name]]
        for setting in settings:
            runs += product("repro.studies.cost_choices:candidate", dataset=list(DEVELOPMENT), method=method, seed=SEED,
                            steps=steps, samples=samples, **setting)  # fmt: skip
    return runs


def chosen(rows: pd.DataFrame) -> dict[str, Row]:
    """The setting of each method: of each thing the value with the least mean log W2, all others being usual.

    A setting that diverged on a set, or was not run on every set, is not chosen.
    """
    best: dict[str, Row] = {}
    for method, mine in rows.groupby("method"):
        means = {
            setting: float(part.w2.map(lambda w: math.log(w) if w > 0 else math.inf).mean())
            for setting, part in mine.groupby(list(SETTINGS))
            if part.dataset.nunique() == len(DEVELOPMENT) and part.w2.notna().all()
        }
        best[str(method)] = dict(USUAL)
        for at, name in enumerate(SETTINGS):
            alone = {
                setting[at]: mean for setting, mean in means.items()
                if all(setting[i] == USUAL[other] for i, other in enumerate(SETTINGS) if i != at)
            }  # fmt: skip
            if alone:
                best[str(method)][name] = type(USUAL[name])(min(alone, key=lambda value: alone[value]))
    return best


def study(store: Store, plan: Row, workers: int | None = None, missing: bool = True) -> tuple[Row, pd.DataFrame]:
    """Choices for a plan's bridges, then every method on the sets that are reported: settings, and rows of `cost`.

    plan: of the form of `PLANS`. missing: run what the store has no rows of (default), or take what is there. What it
    holds is not run again, so that this can be stopped and called again.
    """
    bridges = [method for method in plan["methods"] if method in contestants.BRIDGES]
    tries = candidates(bridges, plan["tried"], plan["samples"], plan["others"]) if plan["tried"] else []
    if missing:
        execute(tries, store, workers=workers)
    best = chosen(store.table("cost_choices", tries)) if tries else {}
    runs = final(best, plan)
    if missing:
        execute(runs, store, workers=workers)
    rows = store.table("cost", runs)
    races = cost.races(rows, (*bridges, *(m for m in plan["methods"] if m in contestants.LIBRARY)))
    cost.renew(store, races)
    execute(races, store, workers=workers)
    return best, rows


def final(best: dict[str, Row], plan: Row) -> list[Run]:
    """A plan's reported runs: all of one seed before the next one's. Bridges by their chosen settings (else usual).

    Drawn at every checkpoint by 20 calls, a bridge by those of its grid: the family by its exponential solver, flow
    matching by Euler's; at the end by the plan's `evaluations`, too, and by Heun's.
    """
    runs = []
    for seed in plan["seeds"]:
        for method in plan["methods"]:
            common: Row = {"dataset": plan["datasets"], "method": method, "seed": seed, "samples": plan["samples"],
                           "checkpoints": plan["checkpoints"], "evaluations": [plan["evaluations"]]}  # fmt: skip
            if method in contestants.BRIDGES:
                setting = best.get(method) or plan.get("usual") or USUAL
                common |= {"solver": "chain", "nfe": setting["grid"], "grid": setting["grid"],
                           "steps": plan["bridge_steps"], "settings": training(method, setting)}  # fmt: skip
            elif method in contestants.FAMILY:
                common |= {"solver": "exponential+denoise", "nfe": 20, "steps": plan["steps"]}
            else:
                common |= {"solver": "euler", "nfe": 20, "steps": plan["steps"], "solvers": [["heun"]]}
            runs += product("repro.studies.cost:run", **common)
    return runs
