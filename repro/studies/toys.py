"""The toy experiments of notebook 02: what one run is. Every method gets the same network, steps, data and sampler."""

from __future__ import annotations

import dataclasses
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vsmd
from repro.grid.runs import Result
from repro.studies.drawing import by_prior, counted, drawn
from repro.studies.paths import path_energy, straightness
from repro.studies.plans import GRID_POWER, Draw, draws_of
from repro.studies.pmf import PMFReference
from repro.studies.sets.toys import toy
from vsmd import checks, random
from vsmd.metrics.distances import wasserstein2
from vsmd.model import Model
from vsmd.processes import ForwardProcess
from vsmd.samplers import SOLVERS, time_grid

LEARNING_RATE = 8e-3  # chosen on development sets that no table reports (`choices`), for every method alike
W2_POINTS, W2_DRAWS = 2_000, 5
PATH_POINTS, PATH_STEPS = 20_000, 100
PRIOR_POINTS = 50_000  # that a mixture or empirical prior is made of
CURVE_POINTS = 50_000

SCHEDULES = ("constant", "vp")

Row = dict[str, Any]


def process_of(
    method: str,
    beta: float,
    R: float | None,
    schedule: str,
    basis: str = "coordinates",
    a_mode: str | None = None,
    shape: tuple[int, ...] = (2,),
) -> ForwardProcess:
    """The process of a toy setting: `constant` beta, or `vp` with b_min = .1 and the method's power (VSDM: 1.7)."""
    checks.one_of("schedule", schedule, SCHEDULES)
    levels = vsmd.BetaSchedule(0.1, beta, 1.7 if method == "VSDM" else 1.0) if schedule == "vp" else beta
    return vsmd.forward_process(
        method, shape, beta=levels, damping=R, basis=basis, variational_score=a_mode, prior="gaussian"
    )


def adaptation_of(fields: Row) -> vsmd.Adaptation:
    """`Adaptation` with some fields of its own. Raises ValueError for a name that is none of them."""
    for name in fields:
        checks.one_of("adaptation: field", name, [f.name for f in dataclasses.fields(vsmd.Adaptation)])
    return vsmd.Adaptation(**fields)


@cache
def _reference(dataset: str) -> PMFReference:
    return PMFReference.of(toy(dataset), seed=0)


def _w2(samples: torch.Tensor, dataset: str, seed: int) -> float:
    """Mean exact W2 of five disjoint draws of 2,000 samples against as many fresh data points; nan if diverged."""
    if not bool(torch.isfinite(samples).all()):
        return float("nan")
    data = toy(dataset)(W2_POINTS * W2_DRAWS, random.generator(seed, "w2 data"))
    pairs = zip(samples[: W2_POINTS * W2_DRAWS].chunk(W2_DRAWS), data.chunk(W2_DRAWS), strict=True)
    return float(np.mean([wasserstein2(x, y) for x, y in pairs]))


def quality(samples: torch.Tensor, dataset: str, seed: int, with_w2: bool) -> Row:
    """The columns of a row that samples (n, 2) fill, W2 where it is asked for."""
    rmse, outside = _reference(dataset).rmse(samples)
    std = samples.std(0)
    w2 = {"w2": _w2(samples, dataset, seed), "w2_n": W2_POINTS} if with_w2 else {"w2": None, "w2_n": None}
    row: Row = {"n_samples": len(samples), "pmf_rmse": rmse, "outside": outside, **w2}
    return row | {"gen_std_x": float(std[0]), "gen_std_y": float(std[1])}


def _paths(model: Model, points: int, seed: int) -> Row:
    """Straightness per axis and path energy on 100 uniform ODE steps; nan where the paths diverge."""
    x = model.sample(points, solver="heun", steps=PATH_STEPS, seed=seed, grid_power=1.0, trajectory=True, checked=False)
    if not bool(torch.isfinite(x).all()):
        return dict.fromkeys(("straightness_x", "straightness_y", "path_energy"), float("nan"))
    times = time_grid(PATH_STEPS, model.t_min)
    bend = straightness(x, times)
    energy = path_energy(x, times)
    return {"straightness_x": float(bend[0]), "straightness_y": float(bend[1]), "path_energy": energy}


TOYS_COLUMNS = [
    "dataset",
    "method",
    "beta",
    "schedule",
    "R",
    "a_mode",
    "basis",
    "prior",
    "solver",
    "nfe",
    "seed",
    "n_samples",
    "pmf_rmse",
    "outside",
    "w2",
    "w2_n",
    "straightness_x",
    "straightness_y",
    "path_energy",
    "gen_std_x",
    "gen_std_y",
    "train_steps",
    "train_seconds",
]


def ordered(row: Row) -> Row:
    """A row with all columns of `toys`, empty ones too."""
    return {name: row.get(name) for name in TOYS_COLUMNS}


def baseline(dataset: str, kind: str, seed: int, samples: int = 100_000) -> Result:
    """Rows that need no diffusion: `real` (another draw), `gaussian` (moment-matched), `mixture-32` fitted to data."""
    stream = random.generator(seed, "baseline", kind)
    start = time.perf_counter()
    data = toy(dataset)(samples, stream)
    if kind == "real":
        x = data
    elif kind == "gaussian":
        mean, chol = data.mean(0), torch.linalg.cholesky(torch.cov(data.T))
        x = mean + torch.randn(samples, 2, generator=stream) @ chol.T
    else:
        from sklearn.mixture import GaussianMixture

        mixture = GaussianMixture(int(kind.split("-")[1]), random_state=seed).fit(data.numpy())
        sorted_draws = torch.from_numpy(mixture.sample(samples)[0])  # component by component
        x = sorted_draws[torch.randperm(samples, generator=stream)].float()
    seconds = time.perf_counter() - start
    row = {"dataset": dataset, "method": kind, "seed": seed, **quality(x, dataset, seed, with_w2=True)}
    return Result({"toys": [ordered(row | {"train_seconds": seconds})]})


def run(
    dataset: str,
    method: str,
    beta: float,
    R: float | None,
    schedule: str,
    seed: int,
    plan: list[Row],
    steps: int = 6_000,
    samples: int = 100_000,
    checkpoints: int = 0,
    points: int = 0,
    table: str = "toys",
    basis: str = "coordinates",
    a_mode: str | None = None,
    ema: float = 0.999,
    ablation: str = "",
    adaptation: Row = {},  # noqa: B006 - never mutated
    workdir: Path | None = None,
) -> Result:
    """Train one setting with one seed and measure it: rows of `table`, `toys_curves` and `toys_adaptation`.

    plan: what is sampled from the trained model (`plans`); the last number of the first line is the setting's main row
    (W2, stored points), and paths are measured from its prior. checkpoints: how many points the learning curve has (20
    evaluations and 50,000 samples each). points: how many samples to keep for the scatter figures. basis: of a matrix
    A, the data's "coordinates" or their "principal" axes. a_mode: instead of the method's own ("steered").
    adaptation: those of `Adaptation`'s fields that differ from its defaults (ablations).
    """
    draws = draws_of(plan, SOLVERS, priors=True)
    main = draws[len(plan[0]["evaluations"]) - 1]
    process = process_of(method, beta, R, schedule, basis, a_mode)
    base: Row = {
        "dataset": dataset, "method": method, "beta": beta, "schedule": schedule, "R": R,
        "a_mode": process.variational_score, "basis": basis,
    }  # fmt: skip
    if table != "toys":
        base = {"ablation": ablation, **base}
    curve, start = LearningCurve(base, seed, min(samples, CURVE_POINTS)), time.perf_counter()
    model = vsmd.fit(
        process, toy(dataset), units="raw", steps=steps, learning_rate=LEARNING_RATE, seed=seed, ema=ema,
        adaptation=adaptation_of(adaptation),
        snapshots=[round(steps * (i + 1) / checkpoints) for i in range(checkpoints)], on_snapshot=curve.look,
        checkpoint=None if workdir is None or checkpoints else workdir / "training.safetensors",
    )  # fmt: skip
    training = {"seed": seed, "train_steps": steps, "train_seconds": time.perf_counter() - start - curve.seconds}
    rows, shown = measured(model, draws, main, base, training, samples)
    tables = {table: [ordered(row) for row in rows] if table == "toys" else rows}
    tables |= {"toys_curves": curve.rows} if curve.rows else {}
    if model.history:
        tables["toys_adaptation"] = adaptation_rows(model, curve.base)
    name = f"{dataset}_{method}-{process.variational_score}-{beta:g}_{seed}" + "+denoise" * main.denoise
    return Result(tables, {name: shown[:points].numpy()} if points else {})


class LearningCurve:
    """Rows of `toys_curves` from looks at a model in training. seconds: what they took, which is not training."""

    def __init__(self, base: Row, seed: int, samples: int) -> None:
        self.base, self.samples = base | {"seed": seed}, samples
        self.rows: list[Row] = []
        self.seconds = 0.0

    def look(self, step: int, model: Model) -> None:
        """PMF-RMSE of samples by 20 evaluations."""
        begun, reference = time.perf_counter(), _reference(self.base["dataset"])
        x = model.sample(
            self.samples, "heun", 10, self.base["seed"], grid_power=GRID_POWER, denoise=False, checked=False
        )
        rmse, outside = reference.rmse(x)
        columns = {"train_steps": step, "nfe": 20, "n_samples": self.samples, "pmf_rmse": rmse, "outside": outside}
        self.rows.append(self.base | columns)
        self.seconds += time.perf_counter() - begun


def measured(
    model: Model, draws: list[Draw], main: Draw, base: Row, training: Row, samples: int
) -> tuple[list[Row], torch.Tensor]:
    """A row for each draw, the columns of the setting, of the draw, of training and of quality; the samples of `main`.

    W2 is measured for `main` alone, paths for all draws that start where it starts.
    """
    dataset, seed, main_samples = base["dataset"], training["seed"], torch.empty(0)
    known = toy(dataset)(PRIOR_POINTS, random.generator(seed, "prior data"))
    rows: list[Row] = []
    for started, its_draws in by_prior(model, draws, known, seed):
        bend = _paths(started, min(samples, PATH_POINTS), seed) if main in its_draws else {}
        for draw in its_draws:
            x, nfe = counted(started.network, draw.evaluations, partial(drawn, started, samples, draw, seed))
            row = {**base, "prior": draw.prior, "solver": draw.name, "nfe": nfe, **training, **bend}
            rows.append(row | quality(x, dataset, seed, with_w2=draw == main))
            if draw == main:
                main_samples = x
    return rows, main_samples


def adaptation_rows(model: Model, base: Row) -> list[Row]:
    """Rows of `toys_adaptation`: the step size and the stiffness of either axis at each step that adapted A."""
    return [
        {**base, "step": h["step"], "eta": h["eta"], "stiffness_x": h["stiffness"][0][0],
         "stiffness_y": h["stiffness"][0][1]}
        for h in model.history
    ]  # fmt: skip
