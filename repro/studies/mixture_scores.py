"""Mixtures as variational scores on the toys: where their process ends, and how often their control must be taken anew.

Quality beside the other methods is in `units`; what is here needs no network, or one on the development sets.
"""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

import torch
from torch import Tensor

import vsmd
from repro.grid.runs import Result
from repro.studies import toys
from repro.studies.sets.toys import toy
from vsmd import checks, random
from vsmd.bridges import MixtureProcess
from vsmd.couplings import MixtureFit
from vsmd.data.kinds import DRAWS
from vsmd.samplers.exponential import Exponential

Row = dict[str, Any]

POINTS = 24_000  # of which 4,000 are carried to T
PARTS, POWERS, EVALUATIONS = (1, 2, 4, 8), (1, 1.5, 2, 3), (5, 10, 20)


def end_kl(process: MixtureProcess, data: Tensor, draws: int = 4_000, seed: int = 0) -> float:
    """Estimate of KL(law of a_T || prior) in nats: does the process reach its prior? Below .01 it does.

    The law of a_T is the mean over points of a closed form, and is taken at ends of other points; the error is
    about sqrt(2 KL / draws), and the estimate is too small where few points are near (many dimensions).
    data: (n, *shape), n >= 2. draws: of ends, at most n/2.
    """
    coupling = process.coupling_of_data()
    x = process.to_directions(checks.points("data", data, process.shape)).double()
    ends, known = x[: min(draws, len(x) // 2)], x[len(x) // 2 :]
    delta = coupling.ends(ends, random.generator(seed, "end")).mT
    u, w = coupling.pushed(known).flatten(1), coupling.pushed(ends).flatten(1)
    w = w + torch.linalg.solve_triangular(coupling.lower, delta.mT, upper=False).mT.flatten(1)
    near = [(-0.5 * torch.cdist(e, u).square() - coupling.log_z(known)).logsumexp(1) for e in w.split(500)]
    phi = coupling.whitened().terms(w.view(len(w), *coupling.mean.shape[1:])).logsumexp(1)
    target, size = process.reference_variance(), coupling.lower.diagonal().log().sum()
    square = (w.view(len(w), process.dim, process.k) @ coupling.lower.T).flatten(1).square().sum(1)
    prior = -0.5 * square / target - 0.5 * process.dim * process.k * math.log(target)
    return float((torch.cat(near) - math.log(len(known)) + phi - process.dim * size - prior).mean())


def ends(
    dataset: str,
    seed: int,
    method: str = "VSCLD",
    beta: float = 2,
    R: float | None = None,
    components: int | None = 50,
    steps: int = 3_000,
) -> Result:
    """Fit a mixture score to a standardised toy, without a network: a row of `mixture_scores`.

    end_kl, moments_kl: of the law of a_T from the prior, all of it (estimated, below .01 nats it ends there) and of its
    two moments. correlation: of x_0 and x_T, mean of the axes: how much of its place a point keeps.
    steps: of the fit.
    """
    x, began = toy(dataset)(DRAWS, random.generator(seed, "points")), time.perf_counter()
    linear = vsmd.forward_process(method, (2,), beta=beta, damping=R, variational_score="mixture")
    process = linear.with_units("standardised").with_data(x).coupled(x, MixtureFit(components, steps=steps), seed)
    assert isinstance(process, MixtureProcess)
    row: Row = {"dataset": dataset, "method": method, "beta": beta, "R": R, "components": components, "seed": seed}
    row["seconds"] = time.perf_counter() - began
    fresh = toy(dataset)(POINTS, random.generator(seed, "end points"))
    start = process.to_directions(fresh).double()
    end = process.states(start, torch.ones(len(start), dtype=torch.float64), random.generator(seed, "ends"))[:, 0]
    together = [float(torch.corrcoef(torch.stack([start[:, i], end[:, i]]))[0, 1]) for i in range(2)]
    measured = {"end_kl": end_kl(process, fresh, seed=seed), "moments_kl": float(process.prior_kl().sum())}
    return Result({"mixture_scores": [row | measured | {"correlation": sum(together) / len(together)}]})


def control_parts(
    dataset: str,
    seed: int,
    components: int = 50,
    beta: float = 2,
    fit_steps: int = 3_000,
    steps: int = 2_000,
    samples: int = 20_000,
) -> Result:
    """How often a step's control must be taken anew: rows of `mixture_parts` by parts, power of the grid, evaluations.

    One model, standardised data; seconds are those of drawing. For the development sets: a solver's default is chosen.
    """
    process = vsmd.forward_process("VSCLD", (2,), beta=beta, variational_score="mixture")
    model = vsmd.fit(
        process, toy(dataset), units="standardised", steps=steps, seed=seed, learning_rate=toys.LEARNING_RATE,
        mixture=MixtureFit(components, steps=fit_steps),
    )  # fmt: skip
    base: Row = {"dataset": dataset, "seed": seed, "components": components, "train_steps": steps}
    rows = []
    for parts, power, nfe in itertools.product(PARTS, POWERS, EVALUATIONS):
        began = time.perf_counter()
        x = model.sample(
            samples, Exponential(parts), nfe, seed, grid_power=power, denoise=False, checked=False
        )  # fmt: skip
        seconds = time.perf_counter() - began
        quality = toys.quality(x, dataset, seed, with_w2=False)["pmf_rmse"]
        row = {"parts": parts, "grid_power": power, "nfe": nfe, "pmf_rmse": quality, "seconds": seconds}
        rows.append({**base, **row})
    return Result({"mixture_parts": rows})
