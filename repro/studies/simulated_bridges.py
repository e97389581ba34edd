r"""Schrödinger bridges by simulation, what the variational score is there to spare: two policies, trained in turn.

The reference is the plain process (A = 0) in standardised units on N equal steps h of its clock; forward and backward
policies u and w steer its noisy component e (v, or x without velocity), g^2 = 2 gamma (or 2):

    forward:   e+ = e + h (f(a) + g^2 u(a, i)) + g sqrt(h) n,        x+ = x + h v
    backward:  e  = e+ - h (f(a+) - g^2 w(a+, i + 1)) + g sqrt(h) n,  x  = x+ - h v

Iterative proportional fitting: w is fitted to reverse the forward chain from the data, then u to reverse the backward
chain from the prior N(0, I), by mean matching (De Bortoli et al. 2021), the momentum chain's position following exactly
(phase space: Chen et al. 2023c). The first half is denoising score matching of the reference. Trajectories are cached
and drawn anew every `refresh` steps. Policies are the networks that everybody has, of the state's k d numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from repro.studies.alternating import Fitting, alternate
from vsmd import checks, random
from vsmd.networks.mlp import MLP

LEVELS = 7.0  # the network is told i/N between -7 and 7, as it is told log snr elsewhere
Sampler = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Chain:
    """The reference on its grid. k: 1 or 2; c: friction of k = 2, whose stiffness is 1; clock: its end; steps: N."""

    k: int
    dim: int
    clock: float
    steps: int
    gamma: float = 2.0
    c: float = 1.0

    @property
    def h(self) -> float:
        """A step of the clock."""
        return self.clock / self.steps

    @property
    def noise(self) -> float:
        """g^2."""
        return 2 * self.gamma if self.k == 2 else 2.0

    def drift(self, a: Tensor) -> Tensor:
        """f(a) of the noisy component, for states a (n, k, dim)."""
        return -a[:, 0] - self.gamma * self.c * a[:, 1] if self.k == 2 else -a[:, 0]

    def start(self, x: Tensor, stream: torch.Generator) -> Tensor:
        """States of data x (n, dim): v ~ N(0, I)."""
        return torch.stack([x, *(torch.randn(x.shape, generator=stream) for _ in range(self.k - 1))], 1)

    def prior(self, n: int, stream: torch.Generator) -> Tensor:
        """n states of N(0, I)."""
        return torch.randn(n, self.k, self.dim, generator=stream)


class Policy(nn.Module):
    """u(a, i): the last d of the k d outputs of a network of the state, told i/N, in units 1/g; zero at first.

    spread: deviations (dim,) of the data in the bridge's units (default 1). The network sees x over spread^(1 - i/N),
    from the data's size to the prior's. pull: of the score of a Gaussian that size (v of size 1), which is added: 1 for
    backward policies, so that training starts from the reversal of Gaussian data, as the family's does.
    """

    pull: float = 0.0

    def __init__(self, chain: Chain, network: nn.Module | None = None, spread: Tensor | None = None) -> None:
        super().__init__()
        self.chain = chain
        self.network = MLP((chain.k * chain.dim,)) if network is None else network
        self.register_buffer("spread", torch.ones(chain.dim) if spread is None else spread.float())

    def forward(self, a: Tensor, i: Tensor | int) -> Tensor:
        chain = self.chain
        share = torch.as_tensor(i, dtype=torch.float32).view(-1, 1) / chain.steps
        level = (LEVELS * (2 * share - 1)).expand(-1, chain.k * chain.dim)
        unit = self.get_buffer("spread") ** (1 - share)
        z = torch.cat([a[:, 0] / unit, a[:, 1:].flatten(1)], 1)
        answer = self.network(z, level)[:, -chain.dim :] / chain.noise**0.5
        return answer - self.pull * a[:, -1] / (unit.square() if chain.k == 1 else 1.0)


def forward_mean(chain: Chain, u: Policy, a: Tensor, i: Tensor | int) -> Tensor:
    """E e+ given a at step i."""
    return a[:, -1] + chain.h * (chain.drift(a) + chain.noise * u(a, i))


def backward_mean(chain: Chain, w: Policy, a: Tensor, i: Tensor | int) -> Tensor:
    """E e at step i - 1 given a at step i."""
    return a[:, -1] - chain.h * (chain.drift(a) - chain.noise * w(a, i))


@torch.no_grad()
def forward_path(chain: Chain, u: Policy, a: Tensor, stream: torch.Generator) -> Tensor:
    """The chain from states a (n, k, dim) at step 0: (N + 1, n, k, dim)."""
    nodes = [a]
    for i in range(chain.steps):
        noise = torch.randn(a.shape[0], chain.dim, generator=stream) * (chain.noise * chain.h) ** 0.5
        e = forward_mean(chain, u, a, i) + noise
        a = e[:, None] if chain.k == 1 else torch.stack([a[:, 0] + chain.h * a[:, 1], e], 1)
        nodes.append(a)
    return torch.stack(nodes)


@torch.no_grad()
def backward_path(chain: Chain, w: Policy, a: Tensor, stream: torch.Generator) -> Tensor:
    """The chain from states a at step N back to step 0, in the order of the steps: (N + 1, n, k, dim)."""
    nodes = [a]
    for i in range(chain.steps, 0, -1):
        noise = torch.randn(a.shape[0], chain.dim, generator=stream) * (chain.noise * chain.h) ** 0.5
        e = backward_mean(chain, w, a, i) + noise
        a = e[:, None] if chain.k == 1 else torch.stack([a[:, 0] - chain.h * e, e], 1)
        nodes.append(a)
    return torch.stack(nodes[::-1])


@torch.no_grad()
def backward_target(chain: Chain, u: Policy, a: Tensor, after: Tensor, i: Tensor | int) -> Tensor:
    """What `backward_mean` at `after` is regressed on, for a step i from a to after of the forward chain; (n, dim)."""
    return after[:, -1] + forward_mean(chain, u, a, i) - forward_mean(chain, u, after, i)


@torch.no_grad()
def forward_target(chain: Chain, w: Policy, a: Tensor, after: Tensor, i: Tensor | int) -> Tensor:
    """What `forward_mean` at a is regressed on, for a step from after (at i + 1) to a of the backward chain."""
    return a[:, -1] + backward_mean(chain, w, after, i + 1) - backward_mean(chain, w, a, i + 1)


@dataclass(frozen=True, eq=False)
class Bridge:
    """A trained bridge: policies with averaged weights, and how data get into its units and back."""

    chain: Chain
    u: Policy
    w: Policy
    centre: Tensor
    scale: Tensor

    def on(self, steps: int) -> Bridge:
        """The same policies on a grid of as many steps."""
        chain = replace(self.chain, steps=checks.positive_int("steps", steps))
        u, w = copy.copy(self.u), copy.copy(self.w)
        u.chain = w.chain = chain
        return replace(self, chain=chain, u=u, w=w)

    @torch.no_grad()
    def sample(self, n: int, seed: int, *, flow: bool = False, trajectory: bool = False) -> Tensor:
        """n data (n, dim) by the backward chain, N calls of w; flow: by its probability flow, which calls u too.

        trajectory: all nodes, from the prior to the data.
        """
        chain, stream = self.chain, random.generator(seed, "bridge")
        a = chain.prior(n, stream)
        if not flow:
            nodes = backward_path(chain, self.w, a, stream).flip(0)
        else:
            states = [a]
            for i in range(chain.steps, 0, -1):
                push = chain.drift(a) + 0.5 * chain.noise * (self.u(a, i) - self.w(a, i))
                e = a[:, -1] - chain.h * push
                a = e[:, None] if chain.k == 1 else torch.stack([a[:, 0] - chain.h * e, e], 1)
                states.append(a)
            nodes = torch.stack(states)
        x = nodes[:, :, 0] * self.scale + self.centre
        return x if trajectory else x[-1]

    def control_energy(self, x: Tensor, seed: int) -> float:
        r"""1/2 \int g^2 E|u|^2 dtau of the forward chain from data x (n, dim)."""
        stream, chain = random.generator(seed, "energy"), self.chain
        a, total = chain.start((x - self.centre) / self.scale, stream), 0.0
        path = forward_path(chain, self.u, a, stream)
        with torch.no_grad():
            for i, states in enumerate(path[:-1]):
                total += 0.5 * chain.noise * chain.h * float(self.u(states, i).square().sum(1).mean())
        return total


def train(
    chain: Chain,
    data: Sampler,
    moments: tuple[Tensor, Tensor],
    *,
    stages: int = 10,
    inner: int = 500,
    batch_size: int = 1_024,
    paths: int = 2_048,
    refresh: int = 100,
    learning_rate: float = 2e-3,
    ema: float = 0.99,
    seed: int = 0,
    policy: Callable[[Chain], Policy] = Policy,
    on_stage: Callable[[int, Bridge, float], Any] | None = None,
) -> Bridge:
    """Iterative proportional fitting: `stages` times `inner` steps on the backward policy, then on the forward one.

    data: sampler (n, generator) -> (n, dim). moments: mean and deviation (dim,) that its units are taken from.
    paths: simulated and cached, with what their steps are regressed on, for `refresh` steps of batches of `batch_size`
        of their single steps, in units of the noise.
    on_stage: called as on_stage(stage, bridge, seconds) after each, seconds of training so far.
    Raises ValueError for sizes < 1, FloatingPointError when the policies are not finite.
    """
    for name, value in {"batch_size": batch_size, "paths": paths, "refresh": refresh}.items():
        checks.positive_int(name, value)
    with random.first_weights(random.generator(seed, "network")):
        first, second = policy(chain), policy(chain)
    second.pull = 1.0
    u, w = (Fitting(network, learning_rate, ema) for network in (first, second))
    centre, scale = (value.float() for value in moments)
    bridge = Bridge(chain, u.average, w.average, centre, scale)
    cached: tuple[Tensor, Tensor] = torch.empty(0), torch.empty(0)  # nodes of paths, targets of their steps

    def simulated(half: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        if half == 0:
            x = (data(paths, stream) - centre) / scale
            nodes = forward_path(chain, u.average, chain.start(x, stream), stream)
        else:
            nodes = backward_path(chain, w.average, chain.prior(paths, stream), stream)
        steps = nodes[:-1].flatten(0, 1), nodes[1:].flatten(0, 1), torch.arange(chain.steps).repeat_interleave(paths)
        target = backward_target(chain, u.average, *steps) if half == 0 else forward_target(chain, w.average, *steps)
        return nodes, target.view(chain.steps, paths, chain.dim)

    def loss(half: int, stage: int, step: int, stream: torch.Generator) -> Tensor:
        nonlocal cached
        if step % refresh == 0:
            cached = simulated(half, stream)
        nodes, targets = cached
        i = torch.randint(chain.steps, (batch_size,), generator=stream)
        rows = torch.randint(paths, (batch_size,), generator=stream)
        if half == 0:
            mean = backward_mean(chain, w.policy, nodes[i + 1, rows], i + 1)
        else:
            mean = forward_mean(chain, u.policy, nodes[i, rows], i)
        return (targets[i, rows] - mean).square().mean() / (chain.noise * chain.h)

    tell = (lambda stage, seconds: on_stage(stage, bridge, seconds)) if on_stage else (lambda *_: None)
    alternate([(w, partial(loss, 0)), (u, partial(loss, 1))], stages, inner, seed, tell)
    return bridge
