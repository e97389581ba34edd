"""Settings that all methods share, chosen without a look at the sets that are reported.

The learning rate by the denoising loss on held-out draws of the development sets, among those at which the adaptation
of A settles; the solvers' grid by PMF-RMSE on them; the terminal tolerance by what it costs Gaussian data, where
everything is exact.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
from torch import Tensor

import vsmd
from repro.grid.runs import Result
from repro.studies.derivations import reverse_covariance
from repro.studies.pmf import PMFReference
from repro.studies.sets.toys import toy
from repro.studies.toys import process_of
from vsmd import random
from vsmd.adaptation import least_stiffness
from vsmd.model import Model
from vsmd.samplers import as_solver
from vsmd.training.pairs import loss, pairs_at

STRETCH = 8.0
HELD_OUT = 200_000
SAMPLES = 50_000


def stretched(name: str, n: int, generator: torch.Generator) -> Tensor:
    """n draws of a development set: a toy that no table reports, its second axis stretched by 8."""
    return toy(name)(n, generator) * torch.tensor([1.0, STRETCH])


def held_out_loss(model: Model, dataset: str, seed: int) -> float:
    """E kappa^2 |target - net|^2 at uniform times over fresh draws: the training loss, on data never trained on."""
    stream, process, total = random.generator(seed, "held out"), model.process, 0.0
    with torch.no_grad():
        for _ in range(HELD_OUT // 20_000):
            x = stretched(dataset, 20_000, stream)
            t = model.t_min + (1 - model.t_min) * torch.rand(len(x), generator=stream, dtype=torch.float64)
            total += float(loss(model.network, process.basis, pairs_at(process, x, t, stream)))
    return total / (HELD_OUT // 20_000)


def drift(model: Model) -> float:
    """Largest |log(s_last / s_third)| over directions: how far A moves in the last two thirds of its adaptation."""
    third = torch.tensor(model.history[len(model.history) // 3]["stiffness"])
    return float((torch.tensor(model.history[-1]["stiffness"]) / third).log().abs().max())


def train(
    dataset: str,
    method: str,
    beta: float,
    R: float | None,
    schedule: str,
    seed: int,
    learning_rate: float,
    steps: int = 6_000,
    nfes: list[int] = [10, 20, 50, 100],  # noqa: B006 - never mutated
    powers: list[float] = [1, 1.5, 2],  # noqa: B006
    solvers: list[str] = ["heun"],  # noqa: B006
) -> Result:
    """Train one setting on a development set: its held-out loss, and PMF-RMSE for each grid and solver."""
    begun = time.perf_counter()
    process = process_of(method, beta, R, schedule)
    model = vsmd.fit(
        process, partial(stretched, dataset), units="raw", steps=steps, seed=seed, learning_rate=learning_rate
    )
    base = {"dataset": dataset, "method": method, "beta": beta, "seed": seed, "learning_rate": learning_rate}
    rows: list[dict[str, Any]] = [
        {"choice": "learning rate", **base, "measure": "held-out loss", "value": held_out_loss(model, dataset, seed)}
    ]
    if model.history:
        rows.append({"choice": "learning rate", **base, "measure": "drift of A", "value": drift(model)})
    reference = PMFReference.of(partial(stretched, dataset), seed=0)
    for solver in solvers:
        for power in powers:
            for nfe in nfes:
                count = max(1, nfe // as_solver(solver).evaluations)
                x = model.sample(SAMPLES, solver, count, seed, grid_power=power, denoise=False, checked=False)
                rmse, _ = reference.rmse(x)
                row = {"choice": "grid", **base, "solver": solver, "nfe": nfe, "grid_power": power}
                rows.append({**row, "measure": "PMF-RMSE", "value": rmse})
    return Result({"choices": [row | {"train_seconds": time.perf_counter() - begun} for row in rows]})


def tolerance(max_prior_kl: float, R: float, beta: float = 5.0) -> Result:
    """What the terminal tolerance costs Gaussian data of std 1 … 100: the worst relative error of the generated std."""
    std = torch.logspace(0, 2, 81, dtype=torch.float64)
    method = "VSULD" if R < 1 else "VSCLD"
    process = vsmd.forward_process(method, (len(std),), beta=beta, damping=R, prior="gaussian")
    process = process.with_moments(torch.zeros_like(std), std.square())
    least = least_stiffness(process, vsmd.Adaptation(max_prior_kl=max_prior_kl))
    process = process.with_stiffness(torch.maximum(torch.ones_like(std), least)[None])
    _, covariance = reverse_covariance(process, "heun", 200, 1)  # from the gaussian prior, exact: the flow is linear
    error = float(abs(covariance[-1, :, 0, 0] ** 0.5 / std.numpy() - 1).max())
    row = {"choice": "max_prior_kl", "R": R, "beta": beta, "max_prior_kl": max_prior_kl}
    return Result({"choices": [{**row, "measure": "error of the std", "value": error}]})
