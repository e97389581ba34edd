"""Which settings each method of the study `units` gets: candidates on development sets, and what is run with the best.

In two rounds: beta, prior, grid and denoising at the learning rate and weighting of the other studies; then learning
rate and weighting at the best of those. Peers choose their learning rate, source and solver. All by `units.chosen`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

from repro.grid.pool import execute
from repro.grid.runs import Run, product
from repro.grid.store import Store
from repro.studies import edm, flow_matching
from repro.studies.plans import line_of
from repro.studies.units import DEVELOPMENT, chosen

Row = dict[str, Any]


class Budget(NamedTuple):
    """What a run may spend."""

    steps: int
    samples: int


METHODS: dict[str, Row] = {
    "SGM": {"method": "SGM"},
    "VSDM": {"method": "VSDM"},
    "CLD": {"method": "CLD", "R": 1},
    "ULD": {"method": "ULD", "R": 0.7},
    "VSCLD": {"method": "VSCLD", "R": 1},
    "VSULD": {"method": "VSULD", "R": 0.7},
    "steered": {"method": "VSCLD", "R": 1, "a_mode": "steered"},
}
SCALED = ("raw", "standardised")  # the axes of the toys are nearly their coordinates: whitened is the same
BETAS = (2, 5, 10)
RATES, WEIGHTINGS = (4e-3, 8e-3, 1.6e-2), ("score", "unit")
SEED = 7  # of the development runs; no reported run has it
BY = ("method", "units", "a_mode", "prior")  # a choice for each: a mixture to start from is not what A is about
TRAINED = ("method", "units", "a_mode", "beta", "weighting", "learning_rate")  # settings of a training
EVALUATIONS = [10, 20]


def _plan(evaluations: list[int]) -> list[Row]:
    """Every prior, grid and ending that a setting may be drawn with."""
    return [
        {"prior": prior, "solver": "exponential", "evaluations": evaluations, "denoise": clean, "grid_power": power}
        for prior in ("moments", "mixture") for power in (1.5, 2) for clean in (True, False)
    ]  # fmt: skip


def first(steps: int, samples: int) -> list[Run]:
    """Every method in every unit at every beta, on the development sets."""
    return [
        run
        for settings in METHODS.values()
        for run in product(
            "repro.studies.units:run", dataset=DEVELOPMENT, units=SCALED, beta=BETAS, seed=SEED, steps=steps,
            samples=samples, plan=[_plan(EVALUATIONS)], paths=False, **settings,
        )
    ]  # fmt: skip


def second(best: pd.DataFrame, steps: int, samples: int) -> list[Run]:
    """The other learning rates and weightings at the beta of each row of `best` (`units.chosen`)."""
    others = [(rate, weighting) for weighting in WEIGHTINGS for rate in RATES if (rate, weighting) != (8e-3, "score")]
    return [
        run
        for row in best.drop_duplicates([*TRAINED]).to_dict("records")
        for rate, weighting in others
        for run in product(
            "repro.studies.units:run", dataset=DEVELOPMENT, units=row["units"], beta=row["beta"], seed=SEED,
            steps=steps, samples=samples, plan=[_plan(EVALUATIONS)], paths=False, learning_rate=rate,
            weighting=weighting, **settings_of(row["method"], row["a_mode"]),
        )
    ]  # fmt: skip


def settings_of(method: str, a_mode: str) -> Row:
    """The arguments of a method as rows name it."""
    return METHODS["steered" if a_mode == "steered" else method]


def peers(steps: int, samples: int) -> list[Run]:
    """Flow matching from both sources and EDM at every learning rate, on the development sets."""
    common: Row = {"dataset": DEVELOPMENT, "learning_rate": RATES, "seed": SEED, "steps": steps, "samples": samples}
    plan = [{"solver": s, "evaluations": EVALUATIONS} for s in ("euler", "ab2", "midpoint", "heun")]
    flows = [name for name in flow_matching.METHODS if not name.endswith("whitened")]
    denoisers = [name for name in edm.SCALINGS if not name.endswith("whitened")]
    return [
        *product("repro.studies.units:run_flow", method=flows, source=flow_matching.SOURCES, plan=[plan], paths=False,
                 **common),
        *product("repro.studies.units:run_edm", method=denoisers, evaluations=[EVALUATIONS], **common),
    ]  # fmt: skip


def final(best: pd.DataFrame, datasets: list[str], seeds: list[int], steps: int, samples: int) -> list[Run]:
    """Each row of `best` (the family's and the peers'), on the sets that are reported."""
    evaluations, runs = [5, 10, 20, 60], list[Run]()
    for _, rows in best.groupby([*TRAINED], dropna=False, sort=False):
        row = dict(rows.iloc[0])
        common: Row = {"dataset": datasets, "seed": seeds, "steps": steps, "samples": samples,
                       "learning_rate": row["learning_rate"]}  # fmt: skip
        name = row["method"] if row["units"] == "raw" else f"{row['method']}-{row['units']}"
        if name in flow_matching.METHODS:
            for source, solver in zip(rows.prior, rows.solver):
                runs += product(
                    "repro.studies.units:run_flow", method=name, source=source or "gaussian",
                    plan=[[{"solver": solver, "evaluations": evaluations}]], **common,
                )  # fmt: skip
        elif name in edm.SCALINGS:
            runs += product("repro.studies.units:run_edm", method=name, evaluations=[evaluations], **common)
        else:
            runs += product(
                "repro.studies.units:run", units=row["units"], beta=row["beta"], weighting=row["weighting"],
                plan=[[line_of(draw, evaluations) for draw in rows.to_dict("records")]],
                **settings_of(row["method"], row["a_mode"]), **common,
            )  # fmt: skip
    return runs


def study(
    store: Store, datasets: list[str], seeds: list[int], tried: Budget, reported: Budget, workers: int | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both rounds on the development sets, then what was chosen on the sets that are reported: choices and rows.

    tried, reported: steps of training and samples, of the runs that choose and of those in tables. Runs that a store
    holds are not run again, so that this can be stopped and called again.
    """
    real = product("repro.studies.units:baseline", dataset=[*DEVELOPMENT, *datasets], kind="real", seed=seeds,
                   samples=reported.samples)  # fmt: skip
    kinds = ["gaussian", "mixture-32"]
    plain = real + product("repro.studies.units:baseline", dataset=datasets, kind=kinds, seed=seeds,
                           samples=reported.samples)  # fmt: skip
    floors_at = product("repro.studies.units:baseline", dataset=DEVELOPMENT, kind="real", seed=[0, 1, 2],
                        samples=tried.samples)  # fmt: skip
    families, others = first(*tried), peers(*tried)
    execute([*plain, *floors_at, *families, *others], store, workers=workers)
    floors = store.table("units", floors_at).groupby("dataset").pmf_rmse.mean()
    again = second(chosen(store.table("units", families), floors, BY), *tried)
    execute(again, store, workers=workers)
    best = pd.concat([
        chosen(store.table("units", [*families, *again]), floors, BY),
        chosen(store.table("units", others), floors, BY),
    ])  # fmt: skip
    runs = [*plain, *final(best, datasets, seeds, *reported)]
    execute(runs, store, workers=workers)
    return best, store.table("units", runs)
