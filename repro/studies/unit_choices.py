"""Which settings each method of the study `units` gets: candidates on development sets, and what is run with the best.

In two rounds: beta, prior, grid and denoising at the learning rate and weighting of the other studies; then learning
rate and weighting at the best of those. Peers choose their learning rate, source, solver and time grid (flow matching)
or the power and start of their noise levels (EDM). All by `units.chosen`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from repro.grid.pool import execute
from repro.grid.runs import Run, product
from repro.grid.store import Store
from repro.studies import edm, flow_matching
from repro.studies.plans import OPTIONS, line_of
from repro.studies.units import DEVELOPMENT, SETTING, chosen

Row = dict[str, Any]


class Budget(NamedTuple):
    """What a run may spend."""

    steps: int
    samples: int


METHODS: dict[str, Row] = {  # beta constant as in the paper, or its VP law as most users of SGM, and VSDM, have it
    "SGM": {"method": "SGM", "schedule": "constant"},
    "SGM-vp": {"method": "SGM", "schedule": "vp"},
    "VSDM-vp": {"method": "VSDM", "schedule": "vp"},
    "CLD": {"method": "CLD", "R": 1},
    "ULD": {"method": "ULD", "R": 0.7},
    "VSCLD": {"method": "VSCLD", "R": 1},
    "VSULD": {"method": "VSULD", "R": 0.7},
    "steered": {"method": "VSCLD", "R": 1, "a_mode": "steered"},
    "mixture": {"method": "VSCLD", "R": 1, "a_mode": "mixture"},
}
COMPONENTS = (8, 50)  # of mixture scores
SCALED = ("raw", "standardised")  # the axes of the toys are nearly their coordinates: whitened is the same
BETAS = {"constant": (1, 2, 5, 10), "vp": (2, 5, 10, 20)}  # the largest one of a law that grows
RATES, WEIGHTINGS = (4e-3, 8e-3, 1.6e-2), ("score", "unit")
USUAL = (8e-3, "score")  # learning rate and weighting of the first round
SEED = 7  # of the development runs; no reported run has it
TRAINING = ("method", "units", "a_mode", "components", "schedule")  # the second round starts from the best of these
BY = (*TRAINING, "prior")  # a choice for each: a mixture to start from is not what A is about
TRAINED = (*TRAINING, "beta", "weighting", "learning_rate")  # settings of a training
EVALUATIONS = [10, 20]
POWERS = (1, 2, 3)  # of time grids


def family_plan(
    evaluations: list[int], a_mode: str | None = None, priors: Sequence[str] = ("moments", "mixture")
) -> list[Row]:
    """Every prior, grid and ending that a setting may be drawn with; a mixture score ends in the plain prior."""
    priors = ("gaussian",) if a_mode == "mixture" else priors
    return [
        {"prior": prior, "solver": "exponential", "evaluations": evaluations, "denoise": clean, "grid_power": power}
        for prior in priors for power in POWERS for clean in (True, False)
    ]  # fmt: skip


def first(steps: int, samples: int) -> list[Run]:
    """Every method in every unit at every beta, on the development sets; mixture scores on standardised data only."""
    return [
        run
        for settings in METHODS.values()
        for run in product(
            "repro.studies.units:run", dataset=DEVELOPMENT,
            units=[scale for scale in SCALED if scale != "raw" or settings.get("a_mode") != "mixture"],
            beta=BETAS[settings.get("schedule", "constant")], seed=SEED, steps=steps, samples=samples,
            plan=[family_plan(EVALUATIONS, settings.get("a_mode"))], paths=False,
            **({"components": COMPONENTS} if settings.get("a_mode") == "mixture" else {}), **settings,
        )
    ]  # fmt: skip


def second(best: pd.DataFrame, steps: int, samples: int) -> list[Run]:
    """The other learning rates, and the other weighting, at the beta of each row of `best` (`units.chosen`)."""
    others = [(rate, USUAL[1]) for rate in RATES if rate != USUAL[0]]
    others += [(USUAL[0], weighting) for weighting in WEIGHTINGS if weighting != USUAL[1]]
    return [
        run
        for row in best.drop_duplicates([*TRAINED]).to_dict("records")
        for rate, weighting in others
        for run in product(
            "repro.studies.units:run", dataset=DEVELOPMENT, units=row["units"], beta=row["beta"], seed=SEED,
            steps=steps, samples=samples, plan=[family_plan(EVALUATIONS, row["a_mode"])], paths=False,
            learning_rate=rate, weighting=weighting, **settings_of(row),
        )
    ]  # fmt: skip


def settings_of(row: Mapping[Any, Any]) -> Row:
    """The arguments of the method of a row."""
    by_schedule = row["method"] + "-vp" * (row["schedule"] == "vp")
    settings = METHODS[row["a_mode"] if row["a_mode"] in METHODS else by_schedule]
    return settings | ({"components": int(row["components"])} if pd.notna(row.get("components")) else {})


def peers(steps: int, samples: int) -> list[Run]:
    """Flow matching from both sources and EDM at every learning rate, on the development sets."""
    common: Row = {"dataset": DEVELOPMENT, "learning_rate": RATES, "seed": SEED, "steps": steps, "samples": samples}
    flows = [name for name in flow_matching.METHODS if not name.endswith("whitened")]
    denoisers = [name for name in edm.SCALINGS if not name.endswith("whitened")]
    return [
        *product("repro.studies.units:run_flow", method=flows, source=flow_matching.SOURCES,
                 plan=[flow_plan(EVALUATIONS)], paths=False, **common),
        *product("repro.studies.units:run_edm", method=denoisers, plan=[edm_plan(EVALUATIONS)], **common),
    ]  # fmt: skip


def flow_plan(evaluations: list[int]) -> list[Row]:
    """Every solver and time grid that flow matching may be drawn with."""
    return [
        {"solver": solver, "evaluations": evaluations, "grid_power": power}
        for solver in ("euler", "ab2", "midpoint", "heun") for power in POWERS
    ]  # fmt: skip


def edm_plan(evaluations: list[int]) -> list[Row]:
    """Every grid of noise levels that EDM may be drawn with: its own and shorter ones."""
    return [
        {"solver": "heun", "evaluations": evaluations, "grid_power": power, "sigma_max": high}
        for power in (3, 5, 7) for high in (5, 20, 80)
    ]  # fmt: skip


def final(best: pd.DataFrame, datasets: list[str], seeds: list[int], steps: int, samples: int) -> list[Run]:
    """Each row of `best` (the family's and the peers'), on the sets that are reported."""
    runs = list[Run]()
    for _, rows in best.groupby([*TRAINED], dropna=False, sort=False):
        draws = rows.to_dict("records")
        common: Row = {"dataset": datasets, "seed": seeds, "steps": steps, "samples": samples,
                       "learning_rate": draws[0]["learning_rate"]}  # fmt: skip
        for settings in _final(draws):
            runs += product(settings.pop("function"), **settings, **common)
    return sorted(runs, key=lambda run: run.config["seed"])  # a whole picture of one seed first


def _final(draws: Sequence[Mapping[Any, Any]]) -> list[Row]:
    """Function and settings of the runs that draw as these rows of one setting of training do, at more evaluations."""
    evaluations, row = [5, 10, 20, 60], draws[0]
    name = row["method"] if row["units"] == "raw" else f"{row['method']}-{row['units']}"
    if name in flow_matching.METHODS:
        return [
            {"function": "repro.studies.units:run_flow", "method": name, "source": draw["prior"],
             "plan": [[line_of(draw, evaluations, flow_matching.OPTIONS)]]}
            for draw in draws
        ]  # fmt: skip
    if name in edm.SCALINGS:
        plan = [line_of(draw, evaluations, edm.OPTIONS) for draw in draws]
        return [{"function": "repro.studies.units:run_edm", "method": name, "plan": [plan]}]
    plan = [line_of(draw, evaluations, ("prior", *OPTIONS)) for draw in draws]
    return [{"function": "repro.studies.units:run", "units": row["units"], "beta": row["beta"],
             "weighting": row["weighting"], "plan": [plan], **settings_of(row)}]  # fmt: skip


def brief(datasets: list[str], seeds: list[int], steps: int, samples: int) -> list[Run]:
    """What small profiles have in place of `study`: a few settings that nobody has chosen, and the floor."""
    ours = {"weighting": USUAL[1], "prior": "mixture", "solver": "exponential", "schedule": "constant", "beta": 2}
    settings: list[Row] = [
        ours | {"method": "CLD", "units": "standardised", "a_mode": "zero"},
        ours | {"method": "VSCLD", "units": "raw", "a_mode": "adaptive", "beta": 5},
        ours | {"method": "VSCLD", "units": "raw", "a_mode": "steered"},
        {"method": "ot-cfm", "units": "standardised", "prior": "gaussian", "solver": "ab2"},
        {"method": "edm", "units": "standardised", "prior": "", "solver": "heun", "sigma_max": 20},
    ]
    powers = {"ot-cfm": flow_matching.GRID_POWER, "edm": edm.POWER}
    lines = [{"learning_rate": USUAL[0], "grid_power": powers.get(row["method"], 2)} | row for row in settings]
    best = pd.DataFrame(lines).reindex(columns=[*SETTING])
    real = product("repro.studies.units:baseline", dataset=datasets, kind=["real", "gaussian"], seed=seeds,
                   samples=samples)  # fmt: skip
    return [*real, *final(best, datasets, seeds, steps, samples)]


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
    again = second(chosen(store.table("units", families), floors, TRAINING), *tried)
    execute(again, store, workers=workers)
    best = pd.concat([
        chosen(store.table("units", [*families, *again]), floors, BY),
        chosen(store.table("units", others), floors, BY),
    ])  # fmt: skip
    runs = [*plain, *final(best, datasets, seeds, *reported)]
    execute(runs, store, workers=workers)
    return best, store.table("units", runs)
