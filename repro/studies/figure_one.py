"""Rows of the simulated bridges for Figure 1's table, measured as notebook 01 measures the family's.

Gaussian data of standard deviations (2.09, 18.67), the data's own units, beta as the bridge's contestant has it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from repro.grid.runs import Result
from repro.studies import simulated_bridges as bridges
from repro.studies.contestants import BRIDGES
from repro.studies.paths import bend
from vsmd import checks, random

STD = (2.09, 18.67)
POINTS = 20_000
METHODS = tuple(name for name, of in BRIDGES.items() if not of.get("standardised"))


def gaussian(n: int, stream: torch.Generator) -> Tensor:
    """n draws (n, 2) of the data."""
    return torch.randn(n, 2, generator=stream) * torch.tensor(STD)


def gaussian_kl(x: Tensor) -> float:
    """KL(N(0, S) || N(0, 1)) in nats of the worst direction, S the covariance of states x (n, k, d) there."""
    worst = 0.0
    for direction in range(x.shape[2]):
        cov = torch.cov(x[:, :, direction].double().T).view(x.shape[1], x.shape[1])
        worst = max(worst, 0.5 * float(cov.trace() - len(cov) - cov.logdet()))
    return worst


def run(
    method: str, seed: int, steps: int = 6_000, stages: int = 12, grid: int = 20, learning_rate: float = 2e-3
) -> Result:
    """A row of `figure_one`: mSB or SB trained for `steps` optimiser steps, half of them on either policy.

    hoelder: of forward paths of x, between one and two steps of the grid (1/2 Brownian, 1 smooth). prior_kl: of the
    forward chain's end, by its moments. bend_x: of the probability flow, on the axis that is not stretched.
    Raises ValueError for another name.
    """
    checks.one_of("method", method, METHODS)
    of, seconds = BRIDGES[method], 0.0

    def told(stage: int, bridge: bridges.Bridge, spent: float) -> None:
        nonlocal seconds
        seconds = spent

    chain = bridges.Chain(k=of["k"], dim=2, clock=of["beta"] / 2, steps=grid)
    inner = max(1, steps // (2 * stages))
    bridge = bridges.train(
        chain, gaussian, (torch.zeros(2), torch.ones(2)), stages=stages, inner=inner, refresh=min(100, inner),
        learning_rate=learning_rate, seed=seed, on_stage=told,
        policy=lambda c: bridges.Policy(c, spread=torch.tensor(STD)),
    )  # fmt: skip
    stream = random.generator(seed, "figure one")
    nodes = bridges.forward_path(chain, bridge.u, chain.start(gaussian(POINTS, stream), stream), stream)
    x = nodes[:, :, 0, 0]
    fine, coarse = ((x[m:] - x[:-m]).square().mean() for m in (1, 2))
    flow = bridge.sample(2_000, seed, flow=True, trajectory=True)
    row = {
        "method": method, "seed": seed, "k": chain.k, "beta": of["beta"], "train_seconds": seconds,
        "train_steps": 2 * stages * inner, "hoelder": float(0.5 * (coarse / fine).log2()),
        "prior_kl": gaussian_kl(nodes[-1]), "bend_x": float(bend(flow, torch.linspace(0, 1, grid + 1))[0]),
        "control_energy": bridge.control_energy(gaussian(POINTS, stream), seed),
    }  # fmt: skip
    return Result({"figure_one": [row]})
