"""Which settings each method of the study `points` gets on each set: candidates on its validation part, and the best.

In two rounds. The family: each method's beta, units, grid and ending at one learning rate and weighting of the loss;
then the other rates and weighting, and a mixture as prior, at the best of those. Flow matching and EDM: units, source,
solver and grid, then the other rates. Mixtures choose their components, resampling its noise. By sliced W2 and energy
distance over their floors at 10 and 20 evaluations; no look at a test part.

A variational score is tried on standardised data alone: on whitened ones its A is nought, and it is CLD or its like.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from repro.grid.pool import execute
from repro.grid.runs import Run, product
from repro.grid.store import Store
from repro.studies import edm, flow_matching
from repro.studies.plans import OPTIONS, line_of
from repro.studies.points import COLUMNS, SETTING
from repro.studies.unit_choices import METHODS, edm_plan, family_plan, flow_plan, settings_of

Row = dict[str, Any]

RATES, WEIGHTINGS = (1e-3, 2e-3, 4e-3), ("unit", "score")
USUAL = (2e-3, "unit")  # learning rate and weighting of the first round
UNITS, VARIATIONAL_UNITS = ("whitened", "standardised"), ("standardised",)
LEFT_OUT = "SGM"  # with a constant beta, as nobody uses it; "SGM-vp" stands for it
SCORE_COMPONENTS = 8  # of a mixture score: its fit takes longer than training does
BETAS = {"constant": (2, 5, 10), "vp": (5, 10, 20)}  # the largest one of a law that grows
SEED = 7  # of the runs that choose; no reported run has it
EVALUATIONS = [10, 20]
COMPONENTS, NOISES = (1, 4, 16, 64), (0.05, 0.1, 0.2, 0.4)
MEASURES = ("sw2", "energy")
BY = ("dataset", "method", "a_mode", "schedule")


def first(dataset: str, steps: int) -> list[Run]:
    """The family in its units at every beta, on the validation part, from the prior of the data's two moments."""
    rate, weighting = USUAL
    return [
        run
        for name, settings in METHODS.items()
        if name != LEFT_OUT
        for run in product(
            "repro.studies.points:run", dataset=dataset, units=units_of(settings),
            beta=BETAS[settings.get("schedule", "constant")], weighting=weighting, learning_rate=rate, seed=SEED,
            steps=steps, plan=[family_plan(EVALUATIONS, settings.get("a_mode"), ["moments"])], **score_of(settings),
        )
    ]  # fmt: skip


def units_of(settings: Row) -> tuple[str, ...]:
    """The units in which a method is tried."""
    linear = settings["method"] in ("VSDM", "VSCLD", "VSULD") and settings.get("a_mode") != "mixture"
    return VARIATIONAL_UNITS if linear else UNITS


def score_of(settings: Row) -> Row:
    """The settings, with the number of components of a mixture score."""
    return settings | ({"components": SCORE_COMPONENTS} if settings.get("a_mode") == "mixture" else {})


def second(best: pd.DataFrame, steps: int) -> list[Run]:
    """At the units and beta of each row of `best` (`chosen`): other rates, the other weighting, a mixture as prior."""
    others = [(rate, USUAL[1], "moments") for rate in RATES if rate != USUAL[0]]
    others += [(USUAL[0], weighting, "moments") for weighting in WEIGHTINGS if weighting != USUAL[1]]
    return [
        run
        for row in best.to_dict("records")
        for rate, weighting, prior in others + ([(*USUAL, "mixture")] if row["a_mode"] != "mixture" else [])
        for run in product(
            "repro.studies.points:run", dataset=row["dataset"], units=row["units"], beta=row["beta"],
            weighting=weighting, learning_rate=rate, seed=SEED, steps=steps,
            plan=[family_plan(EVALUATIONS, row["a_mode"], [prior])], **score_of(settings_of(row)),
        )
    ]  # fmt: skip


def peers(dataset: str, steps: int, rates: Sequence[float] = USUAL[:1]) -> list[Run]:
    """Every candidate of flow matching and EDM at these rates, and of what needs no network, on the validation part."""
    common: Row = {"dataset": dataset, "seed": SEED}
    return [
        *product("repro.studies.points:run_flow", method=list(flow_matching.METHODS), source=flow_matching.SOURCES,
                 learning_rate=rates, plan=[flow_plan(EVALUATIONS)], steps=steps, **common),
        *product("repro.studies.points:run_edm", method=list(edm.SCALINGS), learning_rate=rates,
                 plan=[edm_plan(EVALUATIONS)], steps=steps, **common),
        *product("repro.studies.points:run_plain", method="mixture", value=COMPONENTS, **common),
        *product("repro.studies.points:run_plain", method="resampled", value=NOISES, **common),
    ]  # fmt: skip


def second_of_peers(best: pd.DataFrame, steps: int) -> list[Run]:
    """The other learning rates of each row of `best` that is flow matching's or EDM's."""
    others = [rate for rate in RATES if rate != USUAL[0]]
    wanted = {(row["dataset"], _named(row["method"], row["units"]), row["prior"]) for row in best.to_dict("records")}
    return [
        run
        for dataset in (best.dataset.unique() if others else ())
        for run in peers(dataset, steps, others)
        if (dataset, run.config["method"], run.config.get("source", "")) in wanted
    ]


def _named(method: str, units: str) -> str:
    """A peer's name, which tells its units."""
    return method if units in ("raw", "") else f"{method}-{units}"


def chosen(rows: pd.DataFrame, by: tuple[str, ...] = BY) -> pd.DataFrame:
    """Of rows of validation parts the setting of each group with the least mean log measure over its floor.

    A setting with a sample that diverged, or a row missing, cannot be chosen. EDM takes an odd number of evaluations,
    what needs no network none.
    """
    asked = [0, *EVALUATIONS, *(n - 1 for n in EVALUATIONS)]
    rows = rows.reindex(columns=list(COLUMNS))  # a table has no columns that are empty throughout
    rows = rows[(rows.part == "validation") & rows.nfe.isin(asked)]
    gap = sum((rows[m] / rows[f"{m}_floor"]).map(lambda v: math.log(v) if v > 0 else math.nan) for m in MEASURES)
    text = ["units", "basis", "a_mode", "schedule", "prior", "weighting", "solver"]
    rows = rows.assign(gap=gap, **{name: rows[name].fillna("") for name in text})
    groups = rows.groupby(["dataset", *SETTING], dropna=False)
    scores = groups.gap.agg(lambda v: v.mean() if v.notna().all() else math.inf).rename("gap")
    complete = (groups.size() >= len(EVALUATIONS)) | (groups.nfe.max() == 0)
    table = scores[complete].reset_index()
    best = table.groupby(list(by), dropna=False).gap.idxmin()
    return table.loc[best.tolist()].reset_index(drop=True)


def choices(rows: pd.DataFrame) -> pd.DataFrame:
    """Of rows of validation parts what each method gets: of flow matching a choice for each coupling, of mixtures and
    resampling one each. Column `selected`: of the family, the one with the least gap on its set."""
    rows = rows.reindex(columns=list(COLUMNS))
    plain = rows.solver.isna()
    kind = rows.method.str.partition("-")[0].where(plain, rows.method)  # mixture-4: a mixture
    best = pd.concat(
        [chosen(part) for _, part in rows[~plain].groupby("method")]
        + [chosen(part, ("dataset",)) for _, part in rows[plain].groupby(kind[plain])], ignore_index=True,
    )  # fmt: skip
    family = best[best.a_mode != ""]
    return best.assign(selected=best.index.isin(family.groupby("dataset").gap.idxmin()))


def final(best: pd.DataFrame, seeds: list[int], steps: int) -> list[Run]:
    """Each row of `best` on its set's test part, with more numbers of evaluations."""
    evaluations, runs = [5, 10, 20, 50], list[Run]()
    for row in best.to_dict("records"):
        common: Row = {"dataset": row["dataset"], "seed": seeds, "part": "test"}
        trained: Row = {**common, "steps": steps, "learning_rate": row["learning_rate"]}
        name = _named(row["method"], row["units"])
        if name in flow_matching.METHODS:
            runs += product(
                "repro.studies.points:run_flow", method=name, source=row["prior"],
                plan=[[line_of(row, evaluations, flow_matching.OPTIONS)]], **trained,
            )  # fmt: skip
        elif name in edm.SCALINGS:
            runs += product("repro.studies.points:run_edm", method=name,
                            plan=[[line_of(row, evaluations, edm.OPTIONS)]], **trained)  # fmt: skip
        elif "-" in row["method"]:
            plain, _, value = row["method"].partition("-")
            runs += product("repro.studies.points:run_plain", method=plain, value=float(value), **common)
        else:
            runs += product(
                "repro.studies.points:run", units=row["units"], beta=row["beta"], weighting=row["weighting"],
                plan=[[line_of(row, evaluations, ("prior", *OPTIONS))]], likelihood=True, **score_of(settings_of(row)),
                **trained, **({"chosen": True} if row.get("selected") else {}),
            )  # fmt: skip
    for dataset in best.dataset.unique():
        runs += product("repro.studies.points:run_plain", dataset=dataset, method=["gaussian", "real"], seed=seeds,
                        part="test")  # fmt: skip
    return runs


def superseded(store: Store, runs: list[Run]) -> list[str]:
    """Keys of stored runs that are marked as the family's choice while among `runs` another one of their set is."""
    present = {run.key: run.config["dataset"] for run in runs if run.config.get("chosen")}
    marked = {key: entry["config"] for key, entry in store.entries("points").items() if entry["config"].get("chosen")}
    return [key for key, config in marked.items() if key not in present and config["dataset"] in present.values()]


def study(
    store: Store,
    dataset: str,
    seeds: list[int],
    tried: int,
    reported: int,
    workers: int | None = None,
    offered: Callable[[Run], Run | None] = lambda run: run,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both rounds on the validation part of a set, then what was chosen (`choices`) on its test part.

    tried, reported: steps of training, of the runs that choose and of those in tables. offered: what becomes of a
    candidate, None to leave it out; by default it stays. Returns choices and rows. Runs that a store holds are not run
    again: stop this, and call it again.
    """

    def candidates(runs: list[Run]) -> list[Run]:
        return [run for run in map(offered, runs) if run is not None]

    begun, others = candidates(first(dataset, tried)), candidates(peers(dataset, tried))
    execute([*begun, *others], store, workers=workers)
    peers_best = choices(store.table("points", others))
    again = candidates([*second(chosen(store.table("points", begun)), tried), *second_of_peers(peers_best, tried)])
    execute(again, store, workers=workers)
    best = choices(store.table("points", [*begun, *again, *others]))
    runs = final(best, seeds, reported)
    execute(runs, store, workers=workers)
    store.remove(superseded(store, runs))
    return best, store.table("points", runs)
