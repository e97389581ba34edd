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
    how: Adaptation,
    seed: int,
    step: int,
    context: Tensor | None = None,
    t_min: float = 1e-3,
    world: World | None = None,
    noise: Noise | None = None,
) -> PathMoments:
    """Simulate `how.paths` backward paths and return w-weighted moments per piece and direction, w = beta g^2 dt.

    Heun for the SDE on `how.nodes` steps, denser towards the data: Euler–Maruyama's bias there exceeds the gradient
    itself for stretched data and moves the fixed point. Trapezoid rule over all nodes, the last one included. Where
    paths times dimensions are many they are simulated in parts, each with a stream of its own, shared out among the
    processes of `world`; the parts' moments are added in the same order however many processes there are. noise: in
    place of those streams.
    """
    process, score = score.process, dataclasses.replace(score, edge=EDGE)
    world = world or World()
    times = time_grid(how.nodes, t_min, 2.0)
    solver = StochasticHeun().on(score, times, context)
    h = torch.tensor(solver.h, dtype=torch.float64)
    weight = 0.5 * (torch.cat([h, h.new_zeros(1)]) + torch.cat([h.new_zeros(1), h]))
    weight = weight * process.schedule.beta(times) * process.per_a
    piece = (times * how.pieces).long().clamp(max=how.pieces - 1)
    total = torch.zeros(how.pieces, dtype=torch.float64).index_add_(0, piece, weight)
    size = max(1, min(how.paths, PART // process.dim))
    parts = [slice(first, min(first + size, how.paths)) for first in range(0, how.paths, size)]
    sums = torch.zeros(len(parts), len(PRODUCTS), how.pieces, *process.shape, dtype=torch.float64)
    for j in range(world.rank, len(parts), world.size):
        stream = BatchNoise(random.generator(seed, "adaptation", step, *([j] if len(parts) > 1 else [])))
        solver.context = None if context is None else context[parts[j]]
        n = parts[j].stop - parts[j].start
        with torch.no_grad():
            for i, products in enumerate(_simulated(solver, how.start, n, noise or stream)):
                for m, value in enumerate(products):
                    sums[j, m, piece[i]] += weight[i] * value
        sums[j] *= n / how.paths
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
