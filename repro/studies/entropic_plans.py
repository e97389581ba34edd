r"""Mixture scores where the Schrödinger plan is known (`repro.studies.sets.entropic`): how far is the fitted plan?

By the benchmark's own measure, cBW2-UVP = 100 E_x BW2^2(fitted(a_T | x), known(a_T | x)) / (Var a_T / 2): the
Bures–Wasserstein distance of conditional laws in per cent of half the target's variance. Both have the reference's
density times their potential, so draws of the fitted one, weighted by known/fitted potential, are draws of the known
one; `ess` says how many of them count. One row a fit in the table `entropic_plans`.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

import vsmd
from repro.grid.runs import Result, Run, product
from repro.studies.sets.entropic import KnownPlan
from vsmd import random
from vsmd.bridges import MixtureProcess
from vsmd.couplings import MixtureFit
from vsmd.metrics.distances import frechet_distance

POINTS, DRAWS = 200, 4_000  # of x, and of a_T given each
COLUMNS = ("method", "dim", "beta", "components", "full", "seed", "cbw2_uvp", "floor", "independent", "ess", "seconds")


def run(
    dim: int, seed: int, method: str = "VSDM", beta: float = 2, components: int = 32, full: bool | None = True,
    steps: int = 3_000, data: int = 100_000,
) -> Result:  # fmt: skip
    """Fit a potential to data of a known plan and compare the conditional laws.

    beta: constant; without velocity .1, .96 and 4.6 are the benchmark's eps of .1, 1 and 10.
    floor: of two sets of draws of the fitted law. independent: of a coupling without any potential's pull, a_T ~ prior.
    """
    process = vsmd.forward_process(method, (dim,), beta=beta, variational_score="mixture")
    assert isinstance(process, MixtureProcess)
    plan = KnownPlan.of(process)
    x, _ = plan.draw(data, random.generator(seed, "plan"))
    known = process.with_moments(torch.zeros(dim), x.var(0).float())
    began = time.perf_counter()
    fitted = known.coupled(x, MixtureFit(components, full=full, steps=steps), seed)
    seconds = time.perf_counter() - began
    held, _ = plan.draw(POINTS, random.generator(seed, "held out"))
    distances = [_conditional(fitted, plan, point, random.generator(seed, "ends", i)) for i, point in enumerate(held)]
    away, floor, apart, ess = (sum(values) / len(held) for values in zip(*distances))
    half = plan.var * dim * process.k / 2
    row: dict[str, Any] = dict(zip(COLUMNS, (method, dim, beta, components, full, seed)))
    shares = {"cbw2_uvp": away, "floor": floor, "independent": apart}
    return Result({"entropic_plans": [row | {n: 100 * v / half for n, v in shares.items()}
                                      | {"ess": ess, "seconds": seconds}]})  # fmt: skip


def _conditional(
    process: MixtureProcess, plan: KnownPlan, x: Tensor, stream: torch.Generator
) -> tuple[float, float, float, float]:
    """BW2^2 of the law of a_T given x: fitted and known, fitted and fitted, prior and known; the share that counts."""
    coupling, rows = process.coupling_of_data(), x.expand(2 * DRAWS, -1)
    ends = coupling.ends(rows, stream).view(len(rows), process.k, process.dim)
    a = ends + plan.start[:, None] * rows[:, None, :]
    first, other = a.split(DRAWS)
    weight = (plan.log_potential(first) - coupling.potential().log(first)).softmax(0)
    equal = torch.full_like(weight, 1 / len(weight))
    laws = [_moments(a, w) for a, w in ((first, weight), (first, equal), (other, equal))]
    known, size = laws[0], plan.var
    prior = torch.zeros_like(known[0]), size * torch.eye(len(known[0]), dtype=torch.float64)
    pairs = ((laws[1], known), (laws[1], laws[2]), (prior, known))
    ess = float(1 / weight.square().sum()) / len(weight)
    away, floor, apart = (frechet_distance(*one, *two) for one, two in pairs)
    return away, floor, apart, ess


def _moments(a: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (m,) and covariance (m, m) of weighted states."""
    flat = a.flatten(1)
    mean = weight @ flat
    centred = flat - mean
    return mean, (centred.T * weight) @ centred


def runs(seeds: list[int]) -> list[Run]:
    """What the tables hold: three dimensions and eps without velocity, a linear score beside; and with velocity."""
    common: dict[str, Any] = {"dim": [2, 16, 64], "components": [1, 32], "seed": seeds}
    betas = [round(2 * math.asinh(eps / 2), 4) for eps in (0.1, 1, 10)]
    return [
        *product("repro.studies.entropic_plans:run", method="VSDM", beta=betas, **common),
        *product("repro.studies.entropic_plans:run", method="VSCLD", beta=2, **common),
    ]
