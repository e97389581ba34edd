"""Which settings each method of `picture_contest` gets: candidates on training images kept apart, the best; the study.

In two rounds. The family: each method's beta and basis at the configuration's learning rate and weight 1 in the
backbone's output; then the other weightings and rates at the best of those. Flow matching and EDM: their rates. Solver
and grid are chosen with them. By FD-EffNet within 20 evaluations; no look at a test part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from repro.grid.pool import execute
from repro.grid.runs import Run, product
from repro.grid.store import Store
from repro.studies import edm, flow_matching
from repro.studies.picture_contest import COLUMNS, SETTING
from repro.studies.picture_contest import PEERS as PEER_RUNS
from repro.studies.plans import OPTIONS, line_of
from repro.studies.unit_choices import METHODS, settings_of
from vsmd.images.configs import CONFIGS

Row = dict[str, Any]

RUN = "repro.studies.picture_contest"
SEED = 7  # of the runs that choose; no reported run has it
USUAL = "backbone"  # weighting of the first round
WEIGHTINGS = ("score", "unit")  # of the second
FACTORS = (0.5, 2.0)  # of the configuration's learning rate, in the second
AXES = ("principal", "cosine")
BASES: dict[str, tuple[str, ...]] = {  # pixel by pixel the steered A leaves the pixels' correlations: it fails there
    "SGM": ("coordinates", *AXES), "SGM-vp": ("coordinates", *AXES), "CLD": ("coordinates", *AXES),
    "VSCLD": ("coordinates", *AXES), "steered": AXES,
}  # fmt: skip
BETAS: dict[str, tuple[float, ...]] = {
    "SGM": (10,), "SGM-vp": (10, 20), "CLD": (5, 10), "VSCLD": (5, 10), "steered": (2, 5, 10),
}  # fmt: skip
PEERS = ("i-cfm", "ot-cfm", "edm")
WITHIN, METRIC = 20, "FD-EffNet"  # evaluations, and what is chosen by
EVALUATIONS = [10, 20, 40]  # that are reported
BY = ("dataset", "method", "a_mode", "schedule")


class Budget(NamedTuple):
    """What a run may spend: steps of training, images drawn, and times that it is looked at on the way."""

    steps: int
    samples: int
    looks: int = 1


def plan_of(peer: str = "") -> list[Row]:
    """Every solver and grid that a peer, or else one of the family, may be drawn with, within as many evaluations."""
    if peer in edm.SCALINGS:
        grids = [(power, high) for power in (3, 7) for high in (20, 80)]
        return [{"solver": "heun", "evaluations": [WITHIN], "grid_power": p, "sigma_max": high} for p, high in grids]
    if peer:
        flows = [(solver, power) for solver in flow_matching.EVALUATIONS for power in (1, 2)]
        return [{"solver": s, "evaluations": [WITHIN], "grid_power": power} for s, power in flows]
    line: Row = {"prior": "moments", "solver": "exponential", "evaluations": [WITHIN], "denoise": True}
    return [line | {"grid_power": power} for power in (1, 2, 3)] + [line | {"solver": "heun"}]


def first(config: str, budget: Budget) -> list[Run]:
    """The family in every basis at every beta."""
    return [
        run
        for name, bases in BASES.items()
        for run in product(
            f"{RUN}:run", config=config, basis=bases, beta=BETAS[name], weighting=USUAL, seed=SEED, steps=budget.steps,
            samples=budget.samples, plan=[plan_of()], **METHODS[name],
        )
    ]  # fmt: skip


def peers(config: str, budget: Budget) -> list[Run]:
    """Flow matching and EDM, raw as images are, at every learning rate."""
    rate = CONFIGS[config].training.learning_rate
    return [
        run
        for method in PEERS
        for run in product(
            f"{RUN}:run_peer", config=config, method=method, learning_rate=[rate * f for f in (1.0, *FACTORS)],
            seed=SEED, steps=budget.steps, samples=budget.samples, plan=[plan_of(method)],
        )
    ]  # fmt: skip


def second(best: pd.DataFrame, config: str, budget: Budget) -> list[Run]:
    """The other weightings and learning rates at basis and beta of each row of `best` (`chosen`)."""
    rate = CONFIGS[config].training.learning_rate
    others = [(weighting, rate) for weighting in WEIGHTINGS] + [(USUAL, rate * f) for f in FACTORS]
    return [
        run
        for row in best.to_dict("records")
        for weighting, learning_rate in others
        for run in product(
            f"{RUN}:run", config=config, basis=row["basis"], beta=row["beta"], weighting=weighting,
            learning_rate=learning_rate, seed=SEED, steps=budget.steps, samples=budget.samples,
            plan=[plan_of()], **settings_of(row),
        )
    ]  # fmt: skip


def chosen(rows: pd.DataFrame) -> pd.DataFrame:
    """Of rows of validation parts the setting of each method with the least FD-EffNet; none where it diverged."""
    rows = rows.reindex(columns=list(COLUMNS))  # a table has no columns that are empty throughout
    rows = rows[(rows.part == "validation") & (rows.metric == METRIC) & (rows.nfe <= WITHIN)]
    text = ["basis", "units", "a_mode", "schedule", "prior", "weighting", "solver"]
    rows = rows.assign(**{name: rows[name].fillna("") for name in text})
    groups = rows.groupby(["dataset", *SETTING], dropna=False).value
    table = groups.agg(lambda v: v.mean() if v.notna().all() else math.inf).reset_index()
    best = table.groupby(list(BY), dropna=False).value.idxmin()
    return table.loc[best.tolist()].reset_index(drop=True)


def final(
    best: pd.DataFrame,
    config: str,
    seeds: list[int],
    budget: Budget,
    evaluations: Sequence[int] = EVALUATIONS,
    **more: Any,
) -> list[Run]:
    """Each row of `best` on its set's test part, at more evaluations, all of one seed before the next one's.

    more: other arguments of the runs.
    """
    runs = list[Run]()
    evaluations = [WITHIN, *(n for n in evaluations if n != WITHIN)]  # the first is looked at on the way
    for row in best.to_dict("records"):
        common: Row = {"config": config, "seed": seeds, "part": "test", "learning_rate": row["learning_rate"],
                       "steps": budget.steps, "samples": budget.samples, "looks": budget.looks, **more}  # fmt: skip
        if row["a_mode"]:
            runs += product(
                f"{RUN}:run", basis=row["basis"], beta=row["beta"], weighting=row["weighting"],
                plan=[[line_of(row, evaluations, ("prior", *OPTIONS))]], **settings_of(row), **common,
            )  # fmt: skip
        else:
            plan = [[line_of(row, evaluations, PEER_RUNS[row["method"]].options)]]
            runs += product(f"{RUN}:run_peer", method=row["method"], plan=plan, **common)
    return sorted(runs, key=lambda run: run.config["seed"])


def brief(config: str, seeds: list[int], budget: Budget, **more: Any) -> list[Run]:
    """What small profiles have in place of `study`: a few settings that nobody has chosen."""
    ours = {"method": "CLD", "basis": "cosine", "beta": 10, "solver": "exponential+denoise", "grid_power": 2.0}
    settings: list[Row] = [
        ours | {"prior": "moments", "a_mode": "zero", "schedule": "constant", "weighting": USUAL},
        {"method": "i-cfm", "a_mode": "", "solver": "midpoint", "grid_power": flow_matching.GRID_POWER},
    ]
    rate = CONFIGS[config].training.learning_rate
    best = pd.DataFrame([{"dataset": config, "learning_rate": rate} | row for row in settings])
    return final(best.reindex(columns=["dataset", *SETTING]), config, seeds, budget, [WITHIN], **more)


def study(
    store: Store,
    config: str,
    seeds: list[int],
    tried: Budget,
    reported: Budget,
    offered: Callable[[Run], Run | None] = lambda run: run,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both rounds on images kept apart, then what was chosen on the test images: choices and rows.

    offered: what becomes of a candidate, None to leave it out; by default it stays. Runs that a store holds are not run
    again: stop this, and call it again.
    """

    def candidates(runs: list[Run]) -> list[Run]:
        return [run for run in map(offered, runs) if run is not None]

    begun, others = candidates(first(config, tried)), candidates(peers(config, tried))
    execute([*begun, *others], store)
    again = candidates(second(chosen(store.table("pictures", begun)), config, tried)) if begun else []
    execute(again, store)
    best = chosen(store.table("pictures", [*begun, *again, *others]))
    runs = final(best, config, seeds, reported)
    execute(runs, store)
    return best, store.table("pictures", runs)
