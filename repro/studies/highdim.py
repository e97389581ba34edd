"""The 64-dimensional experiment of notebook 08: one small network and one budget for the family and for flow matching.

Rows of `highdim`: block_w2 is the mean 2-D sliced W2 over the planes that are not Gaussian, rest_w2 the mean 1-D W2
over the other directions, both of whitened samples against as many fresh points; dense random projections would look
Gaussian whatever the model.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import vsmd
from repro.grid.runs import Result
from repro.studies import flow_matching, toys
from repro.studies.drawing import by_prior, counted, drawn
from repro.studies.mixer import Mixer
from repro.studies.plans import draws_of
from repro.studies.sets.highdim import DIM, blocks_64
from vsmd import networks, random
from vsmd.couplings import MixtureFit
from vsmd.metrics.distances import marginal_wasserstein2, sliced_wasserstein2
from vsmd.priors import Mixture
from vsmd.processes import ForwardProcess
from vsmd.samplers import SOLVERS
from vsmd.training.data import Data, Source

DATASET = "blocks-64"
PROJECTIONS = 64  # of each plane
BATCH = 2_000  # samples drawn at a time: tokens fill the cache sooner than rows

HIGHDIM_COLUMNS = [
    "dataset",
    "method",
    "a_mode",
    "components",
    "full",
    "prior",
    "solver",
    "nfe",
    "seed",
    "block_w2",
    "rest_w2",
    "train_steps",
    "train_seconds",
    "beta",
    "n_samples",
]

# What every method trains, chosen so that flow matching on whitened data learns the blocks.
NETWORK: dict[str, Any] = {"name": Mixer.name, "width": 16, "depth": 3}
TRAINING: dict[str, Any] = {"batch_size": 256, "learning_rate": 1e-2}
STEPS = 3_000


def network_of(seed: int) -> nn.Module:
    """The network of all methods, its first weights a function of the seed."""
    with random.first_weights(random.generator(seed, "network")):
        return networks.build(**NETWORK, shape=[DIM])


@dataclass(frozen=True)
class Axes:
    """The data's principal axes and standard deviations, measured on draws as `fit` measures them."""

    process: ForwardProcess

    @classmethod
    def measured(cls, data: Data, seed: int) -> Axes:
        """Those of a data set in 64 dimensions."""
        return cls(Source(data, (DIM,)).moments(vsmd.forward_process("SGM", (DIM,), basis="principal"), seed))

    def whiten(self, x: Tensor) -> Tensor:
        """Coordinates (n, 64) of x along the axes, each with variance 1."""
        return self.process.to_directions(x) / self.process.known().std.float()

    def colour(self, z: Tensor) -> Tensor:
        """Inverse of `whiten`."""
        return self.process.from_directions(z * self.process.known().std.float())


def quality(samples: Tensor, seed: int) -> toys.Row:
    """block_w2 and rest_w2 of samples (n, 64) against n fresh points; nan if any sample diverged."""
    row: toys.Row = {"block_w2": float("nan"), "rest_w2": float("nan"), "n_samples": len(samples)}
    if not bool(torch.isfinite(samples).all()):
        return row
    data = blocks_64()
    x, y = data.whiten(samples), data.whiten(data(len(samples), random.generator(seed, "w2 data")))
    blocks = [sliced_wasserstein2(x[:, plane], y[:, plane], PROJECTIONS) for plane in data.planes]
    rest = marginal_wasserstein2(x[:, data.rest], y[:, data.rest])
    return row | {"block_w2": sum(blocks) / len(blocks), "rest_w2": rest.mean().item()}


def _ordered(row: toys.Row) -> toys.Row:
    return {name: row.get(name) for name in HIGHDIM_COLUMNS}


def baseline(kind: str, seed: int, samples: int = 20_000) -> Result:
    """Rows that need no training of a network: `real`, `gaussian` (moment-matched), `mixture-32` (fitted to 50,000)."""
    data, stream, began = blocks_64(), random.generator(seed, "baseline", kind), time.perf_counter()
    if kind == "real":
        x = data(samples, stream)
    elif kind == "gaussian":
        points = data(samples, stream).double()
        noise = torch.randn(samples, DIM, generator=stream, dtype=torch.float64)
        x = points.mean(0) + noise @ torch.linalg.cholesky(torch.cov(points.T)).T
    else:
        std = data.std.max()  # one scale: EM's regularisation knows no units
        points = data(toys.PRIOR_POINTS, stream) / std
        mixture = Mixture.fitted(points, torch.full((DIM,), 1e9), int(kind.split("-")[1]), seed)
        x = mixture.sample(samples, stream) * std
    row = {"dataset": DATASET, "method": kind, "seed": seed, **quality(x.float(), seed)}
    return Result({"highdim": [_ordered(row | {"train_seconds": time.perf_counter() - began})]})


def run(
    method: str,
    seed: int,
    beta: float,
    plan: list[toys.Row],
    R: float | None = None,
    a_mode: str | None = None,
    whiten: bool = False,
    components: int | None = None,
    full: bool | None = None,
    steps: int = STEPS,
    samples: int = 20_000,
    workdir: Path | None = None,
) -> Result:
    """One of the six methods in the data's principal axes, trained and measured.

    plan: how samples are drawn (`plans`). a_mode: instead of the method's own ("steered", "zero"). whiten: of data with
    variance 1 along every axis, as flow matching has it; the method is then named -whitened. Its
    basis is the coordinates: they are the axes already, and those of a unit covariance are any.
    components, full: of a mixture score (`MixtureFit`).
    """
    draws = draws_of(plan, SOLVERS, priors=True)
    basis = "coordinates" if whiten else "principal"
    process = vsmd.forward_process(
        method, (DIM,), beta=beta, damping=R, basis=basis, variational_score=a_mode, prior="gaussian"
    )
    data, began = blocks_64(), time.perf_counter()
    axes = Axes.measured(data, seed) if whiten else None

    def points(n: int, stream: torch.Generator) -> Tensor:
        return data(n, stream) if axes is None else axes.whiten(data(n, stream))

    model = vsmd.fit(
        process, points, units="raw", network=network_of(seed), steps=steps, seed=seed, **TRAINING,
        mixture=MixtureFit(components, full),
        checkpoint=None if workdir is None else workdir / "training.safetensors",
    )  # fmt: skip
    name = method + "-whitened" if whiten else method
    base: toys.Row = {
        "dataset": DATASET, "method": name, "a_mode": process.variational_score, "beta": beta, "seed": seed,
        "components": components, "full": full, "train_steps": steps, "train_seconds": time.perf_counter() - began,
    }  # fmt: skip
    known, rows = points(toys.PRIOR_POINTS, random.generator(seed, "prior data")), []
    for started, its_draws in by_prior(model, draws, known, seed):
        for draw in its_draws:
            x, nfe = counted(started.network, draw.evaluations, partial(drawn, started, samples, draw, seed, BATCH))
            row = {**base, "prior": draw.prior, "solver": draw.name, "nfe": nfe}
            rows.append(_ordered(row | quality(x if axes is None else axes.colour(x), seed)))
    return Result({"highdim": rows})


def run_flow(
    method: str, seed: int, plan: list[toys.Row], source: str = "gaussian", steps: int = STEPS, samples: int = 20_000
) -> Result:
    """Flow matching (`flow_matching.METHODS`) with the same network and budget. plan: see `flow_matching.run`."""
    draws = draws_of(plan, flow_matching.EVALUATIONS, options=flow_matching.OPTIONS, power=flow_matching.GRID_POWER)
    began = time.perf_counter()
    flow = flow_matching.train(
        method, blocks_64(), (DIM,), network=network_of(seed), source=source, steps=steps, seed=seed, **TRAINING
    )
    base: toys.Row = {
        "dataset": DATASET, "method": method, "prior": "mixture" if source == "mixture" else None, "seed": seed,
        "train_steps": steps, "train_seconds": time.perf_counter() - began,
    }  # fmt: skip
    rows = []
    for draw in draws:
        x, nfe = flow_matching.drawn(flow, samples, draw, seed, BATCH)
        rows.append(_ordered({**base, "solver": draw.solver, "nfe": nfe, **quality(x, seed)}))
    return Result({"highdim": rows})
