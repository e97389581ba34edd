"""Time to quality: how good each contestant is after how many seconds of training, and how it transports.

A run is one data set, method and seed: rows of `cost` at checkpoints along its training, all drawn alike. `reached`
makes rows of `cost_reach` of them: how soon a method is as good as another one at its best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from repro.grid.runs import Result, Run
from repro.grid.store import Store
from repro.studies import contestants, toys
from repro.studies.paths import path_energy, straightness
from vsmd import checks
from vsmd.metrics.distances import wasserstein2

DATASETS = ("8gaussians", "moons", "spiral-8Y", "checkerboard-6X")
PATHS = 2_000
WITHIN = 1.02  # as good as: W2 at most so many times as large
NEVER = 10.0  # the share of the other one's time that stands for never
COLUMNS = ("dataset", "method", "seed", "train_steps", "train_seconds", "w2", "pmf_rmse", "path_energy", "npe",
           "control_energy", "straightness_x", "solver", "nfe")  # fmt: skip

Row = dict[str, Any]


def run(
    dataset: str,
    method: str,
    seed: int,
    solver: str,
    nfe: int,
    steps: int = 6_000,
    checkpoints: int = 8,
    samples: int = 50_000,
    evaluations: list[int] = [],  # noqa: B006 - never mutated
    solvers: list[str] = [],  # noqa: B006
    settings: Row = {},  # noqa: B006
    grid: int = 0,
) -> Result:
    """Rows of `cost`: one of `contestants.METHODS`, sampled by `solver` within `nfe` network calls at each checkpoint.

    steps: of the optimiser, of both networks of a bridge together. evaluations: more numbers of calls at the last
    checkpoint. solvers: others than `solver` that those are drawn by, too. settings: of the training
    (`contestants.train`). grid: steps of a bridge's simulations, those of the solver at `nfe` calls if 0.
    Raises ValueError for unknown names and sizes < 1, before training.
    """
    plan = [(name, n) for name in (solver, *solvers) for n in (nfe, *evaluations) if (name, n) != (solver, nfe)]
    rows = curve(dataset, method, seed, (solver, nfe), plan, steps, checkpoints, samples, settings, grid)
    return Result({"cost": rows})


def curve(
    dataset: str,
    method: str,
    seed: int,
    main: tuple[str, int],
    more: list[tuple[str, int]],
    steps: int,
    checkpoints: int,
    samples: int,
    settings: Mapping[str, Any],
    grid: int = 0,
) -> list[Row]:
    """The rows of a run; main, more: solver and network calls, of every checkpoint and of the last one besides."""
    checks.one_of("method", method, contestants.METHODS)
    for name, calls in (main, *more):
        checks.one_of("solver", name.partition("+")[0], contestants.solvers_of(method))
        checks.positive_int("nfe", calls)
    checks.positive_int("samples", samples)
    if checks.positive_int("checkpoints", checkpoints) > checks.positive_int("steps", steps):
        raise ValueError(f"checkpoints={checkpoints}: must be at most steps={steps}")
    marks = [round(steps * (i + 1) / checkpoints) for i in range(checkpoints)]
    if not grid and method in contestants.BRIDGES:
        grid = max(1, main[1] // contestants.BRIDGE_SOLVERS[main[0]])
    rows: list[Row] = []
    last: list[tuple[Row, contestants.Shown]] = []

    def measured(row: Row, shown: contestants.Shown, draw: tuple[str, int]) -> None:
        x, nfe = shown.sample(samples, *draw, seed)
        quality = toys.quality(x, dataset, seed, with_w2=True)
        full = row | {name: quality[name] for name in ("w2", "pmf_rmse")} | {"solver": draw[0], "nfe": nfe}
        rows.append({name: full[name] for name in COLUMNS})

    def look(step: int, seconds: float, shown: contestants.Shown) -> None:
        row = {"dataset": dataset, "method": method, "seed": seed, "train_steps": step, "train_seconds": seconds}
        row |= transport(*shown.path(min(samples, PATHS), seed)) | {"control_energy": shown.control_energy(seed)}
        measured(row, shown, main)
        last[:] = [(row, shown)]

    contestants.train(method, dataset, seed, steps, marks, grid, look, settings)
    for draw in more:
        measured(*last[0], draw)
    return rows


def transport(path: Tensor, times: Tensor) -> Row:
    """Path energy, its excess over the least possible as a share of it (npe), and the bend of x; nan if it diverged.

    The least possible is W2^2 of the two ends, here of the paths' own: npe >= 0.
    """
    if not bool(torch.isfinite(path).all()):
        return dict.fromkeys(("path_energy", "npe", "straightness_x"), math.nan)
    energy, least = path_energy(path, times), wasserstein2(path[0], path[-1]) ** 2
    return {"path_energy": energy, "npe": energy / least - 1, "straightness_x": float(straightness(path, times)[0])}


def reached(dataset: str, against: str, curves: Mapping[str, Mapping[str, list[list[Any]]]]) -> Result:
    """Rows of `cost_reach`: when each method is within 2 % of the best W2 of the method `against`, seed by seed.

    curves: by method, by seed, [seconds, W2, control energy or None] of its checkpoints. share: of the seconds that
    `against` took to its best; 10 where a method never gets there, which no mean over seeds hides. control_share: of
    its control energy, both at the end of training.
    """
    rows = []
    for seed, theirs in curves[against].items():
        best_seconds, best, _ = min(theirs, key=lambda point: point[1])
        spent = theirs[-1][2]
        for method, by_seed in curves.items():
            if method == against or seed not in by_seed:
                continue
            times = [seconds for seconds, w2, _ in by_seed[seed] if w2 <= WITHIN * best]
            ours = by_seed[seed][-1][2]
            rows.append({
                "dataset": dataset, "method": method, "against": against, "seed": int(seed), "best_w2": best,
                "best_seconds": best_seconds, "reached": bool(times), "seconds_to_reach": min(times, default=None),
                "share": min(times) / best_seconds if times else NEVER,
                "control_share": ours / spent if spent and ours is not None else None,
            })  # fmt: skip
    return Result({"cost_reach": rows})


def alike(rows: pd.DataFrame) -> pd.DataFrame:
    """Of rows of `cost` those that are drawn as every checkpoint of their run is, in the order of training."""
    keys, draw = ["dataset", "method", "seed"], ["solver", "nfe"]
    first = rows.sort_values("train_steps", kind="stable").drop_duplicates(keys)[[*keys, *draw]]
    return rows.merge(first, on=[*keys, *draw]).sort_values("train_steps", kind="stable")


def races(rows: pd.DataFrame, against: tuple[str, ...]) -> list[Run]:
    """A run of `reached` for each data set and method of `against` of which there are rows of `cost`."""
    main, runs = alike(rows.reindex(columns=list(COLUMNS))), []  # a table has no columns that are empty throughout
    main = main[main.w2.notna()]
    for dataset, part in main.groupby("dataset"):
        curves = {
            method: {
                str(seed): [
                    [None if pd.isna(value) else float(f"{value:.4g}") for value in point]
                    for point in points[["train_seconds", "w2", "control_energy"]].itertuples(index=False)
                ]
                for seed, points in mine.groupby("seed")
            }
            for method, mine in part.groupby("method")
        }
        for name in against:
            if name in curves:
                config = {"dataset": dataset, "against": name, "curves": curves}
                runs.append(Run("repro.studies.cost:reached", config))
    return runs


def renew(store: Store, runs: list[Run]) -> None:
    """Take from a store the rows of `cost_reach` that other rows of `cost` made, before `runs` makes new ones."""
    if "cost_reach" in store.names():
        store.remove(set(store.entries("cost_reach")) - {run.key for run in runs})
