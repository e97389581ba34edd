"""The backward simulation that adaptation needs: the reverse SDE with the current score, its moments on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from vsmd import random
from vsmd.adaptation import Adaptation, PathMoments
from vsmd.priors import GaussianPrior
from vsmd.random import BatchNoise, Noise
from vsmd.samplers.base import time_grid
from vsmd.samplers.heun import StochasticHeun
from vsmd.scores import Score
from vsmd.training.distributed import World

EDGE = 4.0  # of `Score`: the fixed target is wider than the law that a stiff process ends in
PART = 2**18  # paths x dimensions that are simulated together
PRODUCTS = (("x", "x"), ("s", "x"), ("x", "v"), ("v", "v"), ("s", "v"))  # in the order of `PathMoments`


def backward_moments(
    score: Score,
    adaptation: Adaptation,
    seed: int,
    step: int,
    context: Tensor | None = None,
    t_min: float = 1e-3,
    world: World | None = None,
    noise: Noise | None = None,
) -> PathMoments:
    """w-weighted moments, w = beta g^2 dt, per piece and direction, of `adaptation.paths` simulated backward paths.

    Heun for the SDE on `adaptation.nodes` steps, denser towards the data: Euler–Maruyama's bias there exceeds the
    gradient itself for stretched data and moves the fixed point. Trapezoid rule over all nodes, the last one included.
    Many paths times dimensions are simulated in portions, each with a stream of its own, shared out among the processes
    of `world`; their moments are added in the same order however many processes there are. noise: in place of those
    streams.
    """
    process, score = score.process, dataclasses.replace(score, edge=EDGE)
    world = world or World()
    times = time_grid(adaptation.nodes, t_min, 2.0)
    solver = StochasticHeun().on(score, times, context)
    h = torch.tensor(solver.h, dtype=torch.float64)
    weight = 0.5 * (torch.cat([h, h.new_zeros(1)]) + torch.cat([h.new_zeros(1), h]))
    weight = weight * process.schedule.beta(times) * process.per_a
    piece = (times * adaptation.pieces).long().clamp(max=adaptation.pieces - 1)
    total = torch.zeros(adaptation.pieces, dtype=torch.float64).index_add_(0, piece, weight)
    size = max(1, min(adaptation.paths, PART // process.dim))
    portions = [slice(first, min(first + size, adaptation.paths)) for first in range(0, adaptation.paths, size)]
    sums = torch.zeros(len(portions), len(PRODUCTS), adaptation.pieces, *process.shape, dtype=torch.float64)
    for j in range(world.rank, len(portions), world.size):
        stream = BatchNoise(random.generator(seed, "adaptation", step, *([j] if len(portions) > 1 else [])))
        solver.context = None if context is None else context[portions[j]]
        n = portions[j].stop - portions[j].start
        with torch.no_grad():
            for i, products in enumerate(_simulated(solver, adaptation.start, n, noise or stream)):
                for m, value in enumerate(products):
                    sums[j, m, piece[i]] += weight[i] * value
        sums[j] *= n / adaptation.paths
    return PathMoments(total.view(-1, *[1] * len(process.shape)), *world.total(sums).sum(0))


def _simulated(solver: StochasticHeun, start: str, n: int, noise: Noise) -> Iterator[list[Tensor]]:
    """Mean products (`PRODUCTS`) of n backward paths at each node of the solver's grid, float64 (*shape)."""
    score, process = solver.score, solver.process
    normals = noise(torch.empty(n, process.k, *process.shape))
    if start == "target":
        a = normals * process.reference_variance() ** 0.5
    else:
        a = GaussianPrior(process.terminal(0.0)[1]).state(normals)
    a = a.to(score.device)
    for i in range(len(solver.times)):
        s = score(a, solver.table.at(i), solver.context)
        values = {"x": a[:, 0], "v": a[:, -1], "s": s}
        yield [(values[left] * values[right]).mean(0).double().cpu() for left, right in PRODUCTS]
        if i < len(solver.h):
            a = solver.advance(a, s, i, noise)
