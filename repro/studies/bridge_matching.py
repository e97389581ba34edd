r"""Diffusion Schrödinger bridge matching (Shi et al. 2023): iterative Markovian fitting with Brownian bridges.

The reference is Brownian motion sigma W on t in [0, 1] between standardised data at 0 and N(0, I) at 1. Each of two
drifts has a clock r of its own, from 0 where it starts to 1 where it ends: r = t forward, r = 1 - t backward. On

    x_r = (1 - r) start + r end + sigma sqrt(r (1 - r)) n   it is regressed on   (end - x_r) / (1 - r),

in units of unit(r) = sqrt(1 + sigma^2 r/(1 - r)), the target's own size. Pairs (start, end) are independent at first,
then those that the other drift joins by its simulation, cached and drawn anew every `refresh` steps. A step of a
simulation is a Brownian bridge's towards the end that the drift predicts, so that the last one adds no noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from repro.studies.alternating import Fitting, alternate
from repro.studies.flow_matching import level_of
from vsmd import checks, random
from vsmd.networks.mlp import MLP

LAST = 1e-3  # what training leaves out before r = 1
Sampler = Callable[[int, torch.Generator], Tensor]


class Drift(nn.Module):
    """b(x, r) = unit(r) net(x, r) for x (n, dim) and times of its own clock r (n,) or one; zero at first."""

    def __init__(self, dim: int, sigma: float, network: nn.Module | None = None) -> None:
        super().__init__()
        self.dim, self.sigma = dim, sigma
        self.network = MLP((dim,)) if network is None else network

    def unit(self, r: Tensor) -> Tensor:
        """The size of the target at times r < 1, (n, 1)."""
        return (1 + self.sigma**2 * r / (1 - r)).sqrt().view(-1, 1)

    def forward(self, x: Tensor, r: Tensor) -> Tensor:
        return self.unit(r) * self.network(x, level_of(r, (self.dim,)))


def matching_loss(drift: Drift, start: Tensor, end: Tensor, stream: torch.Generator) -> Tensor:
    """Mean square error of the drift on bridges between pairs (n, dim), in the target's units; r is stratified."""
    n = len(start)
    r = (1 - LAST) * (torch.arange(n) + torch.rand(n, generator=stream)) / n
    at = r.view(-1, 1)
    noise = drift.sigma * (at * (1 - at)).sqrt() * torch.randn(start.shape, generator=stream)
    x = (1 - at) * start + at * end + noise
    off = (end - x) / (1 - at) - drift(x, r)
    return (off / drift.unit(r)).square().mean()


@torch.no_grad()
def path(drift: Drift, x: Tensor, steps: int, stream: torch.Generator) -> Tensor:
    """Simulation from x (n, dim) at r = 0 to r = 1 in equal steps: (steps + 1, n, dim)."""
    nodes, h = [x], 1 / steps
    for i in range(steps):
        r = i * h
        left = 1 - (i + 1) / steps  # after the step
        noise = drift.sigma * (h * left / (1 - r)) ** 0.5 * torch.randn(x.shape, generator=stream)
        x = x + h * drift(x, torch.tensor([r])) + noise
        nodes.append(x)
    return torch.stack(nodes)


@dataclass(frozen=True, eq=False)
class MatchedBridge:
    """A trained bridge: drifts with averaged weights, the grid, and how data get into its units and back."""

    ahead: Drift
    back: Drift
    steps: int
    centre: Tensor
    scale: Tensor

    def on(self, steps: int) -> MatchedBridge:
        """The same drifts on a grid of as many steps."""
        return replace(self, steps=checks.positive_int("steps", steps))

    @torch.no_grad()
    def sample(self, n: int, seed: int, *, flow: bool = False, trajectory: bool = False) -> Tensor:
        """n data (n, dim) from N(0, I), one call of the backward drift a step; flow: dx/dt = (ahead - back)/2, of both.

        trajectory: all nodes, from the prior to the data.
        """
        stream = random.generator(seed, "bridge")
        x = torch.randn(n, self.back.dim, generator=stream)
        if not flow:
            nodes = path(self.back, x, self.steps, stream)
        else:
            states = [x]
            for i in range(self.steps):  # times in the middle of a step: a drift has no value where it ends
                r = torch.tensor([(i + 0.5) / self.steps])
                x = x + (self.back(x, r) - self.ahead(x, 1 - r)) / (2 * self.steps)
                states.append(x)
            nodes = torch.stack(states)
        data = nodes * self.scale + self.centre
        return data if trajectory else data[-1]

    def control_energy(self, x: Tensor, seed: int) -> float:
        r"""1/2 \int E|b|^2 / sigma^2 dt of the forward process from data x (n, dim), against sigma W."""
        stream, drift = random.generator(seed, "energy"), self.ahead
        nodes, total = path(drift, (x - self.centre) / self.scale, self.steps, stream), 0.0
        with torch.no_grad():
            for i, states in enumerate(nodes[:-1]):
                size = drift(states, torch.tensor([i / self.steps])).square().sum(1).mean()
                total += 0.5 * float(size) / (drift.sigma**2 * self.steps)
        return total


def train(
    data: Sampler,
    moments: tuple[Tensor, Tensor],
    *,
    sigma: float = 1.0,
    steps: int = 30,
    stages: int = 10,
    inner: int = 500,
    batch_size: int = 1_024,
    paths: int = 2_048,
    refresh: int = 100,
    learning_rate: float = 2e-3,
    ema: float = 0.99,
    seed: int = 0,
    drift: Callable[[int, float], Drift] = Drift,
    on_stage: Callable[[int, MatchedBridge, float], Any] | None = None,
) -> MatchedBridge:
    """`stages` times `inner` training steps of the backward drift, then of the forward one; arguments as of IPF's.

    sigma: of the Brownian motion, in standardised units. steps: of a simulation.
    Raises ValueError for sizes < 1 or sigma <= 0, FloatingPointError when the weights are not finite.
    """
    for name, value in {"steps": steps, "batch_size": batch_size, "paths": paths, "refresh": refresh}.items():
        checks.positive_int(name, value)
    checks.positive("sigma", sigma)
    centre, scale = (value.float() for value in moments)
    with random.first_weights(random.generator(seed, "network")):
        ahead, back = (Fitting(drift(len(centre), sigma), learning_rate, ema) for _ in range(2))
    bridge = MatchedBridge(ahead.average, back.average, steps, centre, scale)
    ends = (torch.empty(0), torch.empty(0))  # of the half in training: where it starts, where it ends

    def joined(half: int, stage: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        if half == 1:
            prior = torch.randn(paths, len(centre), generator=stream)
            return path(back.average, prior, steps, stream)[-1], prior
        x = (data(paths, stream) - centre) / scale
        if stage == 0:
            return torch.randn(x.shape, generator=stream), x
        return path(ahead.average, x, steps, stream)[-1], x

    def loss(half: int, stage: int, step: int, stream: torch.Generator) -> Tensor:
        nonlocal ends
        if step % refresh == 0:
            ends = joined(half, stage, stream)
        rows = torch.randint(paths, (batch_size,), generator=stream)
        return matching_loss((back, ahead)[half].policy, ends[0][rows], ends[1][rows], stream)

    tell = (lambda stage, seconds: on_stage(stage, bridge, seconds)) if on_stage else (lambda *_: None)
    alternate([(back, partial(loss, 0)), (ahead, partial(loss, 1))], stages, inner, seed, tell)
    return bridge
