"""What a linear variational score is: units and a clock. Every method and its peers on data in every unit, at its best.

A constant A is a change of units and clock (`units_and_clock`), so the baseline that belongs beside it is
the plain method on standardised or whitened data, with the same prior and solver. Rows of `units`: one a draw. Paths
are measured twice, in the data's units and in those that the network sees (net_…). Settings are chosen for each method
on `DEVELOPMENT` (`chosen`), never on a set that is reported.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

import vsmd
from repro.grid.runs import Result
from repro.studies import edm, flow_matching, toys
from repro.studies.drawing import by_prior, counted, drawn, peer_columns
from repro.studies.paths import path_energy, straightness
from repro.studies.plans import Draw, draws_of
from repro.studies.sets.toys import toy
from vsmd import random
from vsmd.couplings import MixtureFit
from vsmd.samplers import SOLVERS, time_grid

DEVELOPMENT = ("moons-8Y", "scurve-8Y")
BATCH = 5_000  # samples drawn at a time: what fits the cache is drawn a third faster
SETTING = ("method", "units", "a_mode", "components", "beta", "R", "schedule", "prior", "weighting",
           "learning_rate", "solver", "grid_power", "sigma_max")  # fmt: skip
COLUMNS = ("dataset", *SETTING, "basis", "nfe", "seed", "n_samples", "pmf_rmse", "outside", "gen_std_x", "gen_std_y",
           "bend_x", "bend_y", "path_energy", "net_bend_x", "net_bend_y", "net_path_energy", "train_steps",
           "train_seconds")  # fmt: skip

Row = dict[str, Any]


def run(
    dataset: str,
    method: str,
    seed: int,
    beta: float,
    plan: list[Row],
    units: str = "raw",
    R: float | None = None,
    schedule: str = "constant",
    a_mode: str | None = None,
    components: int | None = None,
    basis: str = "coordinates",
    weighting: str = "score",
    learning_rate: float = toys.LEARNING_RATE,
    steps: int = 6_000,
    samples: int = 100_000,
    paths: bool = True,
) -> Result:
    """One of the six methods, trained on data in some units, and what is drawn from it as a plan says (`plans`)."""
    draws = draws_of(plan, SOLVERS, priors=True)
    process, began = toys.process_of(method, beta, R, schedule, basis, a_mode), time.perf_counter()
    model = vsmd.fit(
        process, toy(dataset), steps=steps, seed=seed, units=units, weighting=weighting, learning_rate=learning_rate,
        mixture=MixtureFit(components),
    )  # fmt: skip
    base = {
        "dataset": dataset, "method": method, "units": units, "beta": beta, "R": R, "schedule": schedule,
        "a_mode": process.variational_score, "components": components, "basis": basis, "weighting": weighting,
        "learning_rate": learning_rate, "seed": seed, "train_steps": steps,
        "train_seconds": time.perf_counter() - began,
    }  # fmt: skip
    known, rows = toy(dataset)(toys.PRIOR_POINTS, random.generator(seed, "prior data")), []
    for started, its_draws in by_prior(model, draws, known, seed):
        bends: Row = {}
        if paths:
            points = min(samples, toys.PATH_POINTS)
            path = started.sample(points, "heun", toys.PATH_STEPS, seed, grid_power=1.0, trajectory=True, checked=False)
            bends = _paths(path, time_grid(toys.PATH_STEPS, model.t_min), model.process.standardised)
        for draw in its_draws:
            x, nfe = counted(started.network, draw.evaluations, partial(drawn, started, samples, draw, seed, BATCH))
            rows.append(_row({**base, **bends}, draw, x, nfe))
    return Result({"units": rows})


def run_flow(
    dataset: str,
    method: str,
    seed: int,
    plan: list[Row],
    source: str = "gaussian",
    learning_rate: float = toys.LEARNING_RATE,
    steps: int = 6_000,
    samples: int = 100_000,
    paths: bool = True,
) -> Result:
    """Flow matching (`flow_matching.METHODS`, source and solvers as there) with the same network, steps and average."""
    draws = draws_of(plan, flow_matching.EVALUATIONS, options=flow_matching.OPTIONS, power=flow_matching.GRID_POWER)
    began = time.perf_counter()
    flow = flow_matching.train(
        method, toy(dataset), (2,), source=source, steps=steps, seed=seed, learning_rate=learning_rate
    )
    base = {"dataset": dataset, "seed": seed} | peer_columns(method, learning_rate, steps, began)
    base["prior"] = source
    if paths:
        path = flow.sample(min(samples, toys.PATH_POINTS), "heun", toys.PATH_STEPS, seed, trajectory=True)
        base |= _paths(path, torch.linspace(0, 1, toys.PATH_STEPS + 1, dtype=torch.float64), flow.scale)
    return Result({"units": [_row(base, draw, *flow_matching.drawn(flow, samples, draw, seed)) for draw in draws]})


def run_edm(
    dataset: str,
    method: str,
    seed: int,
    plan: list[Row],
    learning_rate: float = toys.LEARNING_RATE,
    steps: int = 6_000,
    samples: int = 100_000,
) -> Result:
    """EDM (`edm.SCALINGS`) with the same network, steps and average, its own levels of noise, solver and grids.

    No paths: sigma is no time in which a path has a speed of its own.
    """
    draws, began = draws_of(plan, {"heun"}, options=edm.OPTIONS, power=edm.POWER), time.perf_counter()
    model = edm.train(method, toy(dataset), (2,), steps=steps, seed=seed, learning_rate=learning_rate)
    base = {"dataset": dataset, "seed": seed} | peer_columns(method, learning_rate, steps, began)
    return Result({"units": [_row(base, draw, *edm.drawn(model, samples, draw, seed)) for draw in draws]})


def baseline(dataset: str, kind: str, seed: int, samples: int = 100_000) -> Result:
    """`toys.baseline` as a row of `units`: "real" is the floor."""
    row = toys.baseline(dataset, kind, seed, samples).tables["toys"][0]
    return Result({"units": [{name: row.get(name) for name in COLUMNS}]})


def _paths(path: Tensor, times: Tensor, scale: Callable[[Tensor], Tensor]) -> Row:
    """Bend on either axis and path energy of a path (m + 1, n, 2), in the data's units and after `scale`."""
    row: Row = {}
    for prefix, x in (("", path), ("net_", torch.stack([scale(node) for node in path]))):
        finite = bool(torch.isfinite(x).all())
        bend = straightness(x, times) if finite else torch.full((2,), math.nan)
        row |= {f"{prefix}bend_x": float(bend[0]), f"{prefix}bend_y": float(bend[1])}
        row[f"{prefix}path_energy"] = path_energy(x, times) if finite else math.nan
    return row


def _row(base: Row, draw: Draw, x: Tensor, nfe: int) -> Row:
    row = {"prior": draw.prior or None, **base, "solver": draw.name, "nfe": nfe, "grid_power": draw.grid_power}
    row |= {"sigma_max": draw.sigma_max}
    row |= toys.quality(x, base["dataset"], base["seed"], with_w2=False)
    return {name: row.get(name) for name in COLUMNS}


def chosen(
    rows: pd.DataFrame, floors: pd.Series, by: tuple[str, ...], nfes: tuple[int, ...] = (10, 20)
) -> pd.DataFrame:
    """The setting of each method (columns `by`) with the least mean log PMF-RMSE over its floor on development sets.

    rows: of `units` on `DEVELOPMENT`; floors: PMF-RMSE of real data by set. A setting that diverged anywhere, or was
    not drawn on every set at every number of `nfes`, cannot be chosen.
    """
    asked = [*nfes, *(n - 1 for n in nfes)]  # EDM takes an odd number
    rows = rows.reindex(columns=list(COLUMNS))  # a table has no columns that are empty throughout
    rows = rows[rows.nfe.isin(asked) & rows.dataset.isin(floors.index)]
    gap = (rows.pmf_rmse / rows.dataset.map(floors)).map(lambda v: math.log(v) if v > 0 else math.nan)
    keys = list(SETTING)
    groups = rows.assign(gap=gap, **{key: rows[key].fillna("") for key in ("prior", "a_mode", "schedule")}).groupby(
        keys, dropna=False
    )
    scores = groups.gap.agg(lambda v: v.mean() if v.notna().all() else math.inf).rename("gap")
    complete = groups.size() >= len(floors) * len(nfes)
    table = scores[complete].reset_index()
    best = table.groupby(list(by), dropna=False).gap.idxmin()
    return table.loc[best.tolist()].reset_index(drop=True)
