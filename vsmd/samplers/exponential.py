r"""Exponential integrators of the probability flow: its linear part exactly, one network call a step.

In r = 1 - t the flow is da/dr = G(t) a + b(t) net(z, t) e, e the last component: G is the reverse drift *plus* the
Gaussian part of the score, b = 1/2 noise out. G carries N(0, S_t) to N(0, S_t'), hence only turns L^{-1} a, S = L L',
at the rate that is the upper right entry of L^{-1} G L. Over a step from t down to t'

    a_t' = Psi a_t + L_t' \int_t'^t R(theta(u, t')) e (b/L_vv)(u) net(u) du,
    Psi = L_t' R(theta(t, t')) L_t^{-1},    theta(t, t') = \int_t'^t (beta/2) (L_vv/L_xx)(u) du    (k = 1: R = 1):

quadratures of smooth numbers in place of a differential equation, stiff or not. The network's output is held over the
step (order 1) or extrapolated from its last two values (Adams–Bashforth 2): Psi a + held net + slope (net - last net).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vsmd import checks, kernels
from vsmd.kernels import Matrix
from vsmd.processes import ForwardProcess
from vsmd.random import Noise
from vsmd.samplers.base import Solver
from vsmd.scores import combine

PANEL = 0.75  # widest panel of the quadratures in log t - log(1 - t)
NEAR = 1e-4  # distance from t = 1 down to which panels shrink (a steered process turns there)
WIDEST = 5.0  # times the law's own width that counts as diverged
CONTROL_PARTS = 4  # of a step, in each of which a mixture's control is taken anew; it needs no network
WIDEST_GIVEN = 20.0  # the same with a context, whose law may be wider than the law of all

_C, _W = np.polynomial.legendre.leggauss(8)
_C, _W = (1 + _C) / 2, _W / 2  # on [0, 1]
_POWERS = np.vander(_C, increasing=True)
# row j integrates the polynomial through all nodes from node j to 1
_REST = (1 - _POWERS * _C[:, None]) / np.arange(1, len(_C) + 1) @ np.linalg.inv(_POWERS)
NODES, WEIGHTS, REST = (torch.from_numpy(v) for v in (_C, _W, _REST))


class Quadrature:
    """Nodes for quadrature over every step of a decreasing grid, on panels that end at the grid's nodes and A's knots.

    t: times of the nodes, panel by panel downwards, float64. Values at them are tensors (panels, 8, *shape).
    """

    def __init__(self, times: Tensor, pieces: int, shape: tuple[int, ...]) -> None:
        times = times.to(torch.float64)
        knots = torch.arange(1, pieces, dtype=torch.float64) / pieces
        ends = torch.cat([times, knots[(knots > times[-1]) & (knots < times[0])]]).unique().flip(0)
        ends = (ends / (1 + NEAR - ends)).log()
        gaps = ends[:-1] - ends[1:]
        parts = (gaps / PANEL).ceil().long()
        width, top = ((v.repeat_interleave(parts))[:, None] for v in (gaps / parts, ends[:-1]))
        index = torch.cat([torch.arange(int(n)) for n in parts])[:, None]
        share = torch.sigmoid(top - width * (index + NODES))
        t = (1 + NEAR) * share
        self.t, self.steps = t.reshape(-1), len(times) - 1
        self.pace = (width * t * (1 - share)).view(-1, len(NODES), *[1] * len(shape))  # -dt over a panel of unit width
        self.step = torch.searchsorted(-times, -t[:, 0]) - 1  # that a panel is part of

    def total(self, rate: Tensor) -> Tensor:
        """Integral of `rate` over each step, (steps, *shape)."""
        return self._gather(torch.einsum("j,pj...->p...", WEIGHTS, rate * self.pace))

    def remaining(self, rate: Tensor) -> tuple[Tensor, Tensor]:
        """Integral of `rate` from each node to its step's end (panels, 8, *shape), and `total`."""
        rate = rate * self.pace
        whole = torch.einsum("j,pj...->p...", WEIGHTS, rate)
        total = self._gather(whole)
        later = total.cumsum(0)[self.step] - whole.cumsum(0)  # panels after this one in its step
        return later[:, None] + torch.einsum("ij,pj...->pi...", REST, rate), total

    def _gather(self, whole: Tensor) -> Tensor:
        return whole.new_zeros(self.steps, *whole.shape[1:]).index_add_(0, self.step, whole)


class Tables(NamedTuple):
    """Psi (k x k entries), weights of the network's output and of its last change (k each), all (steps, *shape).

    Of a mixture process, also those of what its control adds to the linear part.
    """

    flow: Matrix
    held: tuple[Tensor, ...]
    slope: tuple[Tensor, ...]
    control: tuple[Tensor, ...] = ()
    control_slope: tuple[Tensor, ...] = ()


def tables(process: ForwardProcess, times: Tensor, parts: int = 1) -> Tables:
    """Tables of all steps of a decreasing grid, float64; FloatingPointError where the process's laws are not finite.

    parts: steps between two calls of the network, whose outputs are known at every so many nodes.
    """
    panels, k = Quadrature(times, process.pieces, process.shape), process.k
    t = torch.cat([panels.t, times.to(torch.float64)])
    channel, chol = process.spread(t)
    t = t.view(-1, *[1] * len(process.shape))
    beta = process.schedule.beta(t)

    def inside(e: Tensor) -> Tensor:
        """At the panels' nodes, (panels, 8, *shape)."""
        return e.expand(len(t), *process.shape)[: len(panels.t)].view(-1, len(NODES), *process.shape)

    def nodes(e: Tensor) -> Tensor:
        """At the grid's nodes, (steps + 1, *shape)."""
        return e.expand(len(t), *process.shape)[len(panels.t) :]

    last = chol[-1]
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    if k == 1:
        root: Matrix = ((nodes(last),),)
        inverse: Matrix = ((1 / nodes(last),),)
        turn: Matrix = ((one,),)
        pushed: tuple[Tensor, ...] = (one,)  # R e
    else:
        lxx, lvx, _ = chol
        angle, whole = panels.remaining(inside(beta / 2 * last / lxx))
        root = ((nodes(lxx), zero), (nodes(lvx), nodes(last)))
        inverse = ((1 / nodes(lxx), zero), (nodes(-lvx / (lxx * last)), 1 / nodes(last)))
        turn = ((whole.cos(), -whole.sin()), (whole.sin(), whole.cos()))
        pushed = (-angle.sin(), angle.cos())
    start_inverse: Matrix = tuple(tuple(e[: panels.steps] for e in row) for row in inverse)
    end_root: Matrix = tuple(tuple(e[-panels.steps :] for e in row) for row in root)

    def weights(force: Tensor) -> tuple[Tensor, ...]:
        return tuple(row[0] for row in kernels.matmul(end_root, tuple((panels.total(force * e),) for e in pushed)))

    force = inside(0.5 * beta * process.per_a * channel.out / last)
    # The output is extrapolated in t: on the toys, in 5 to 20 steps of a uniform grid, sqrt t ends within 15 % of its
    # error (on either side), log t and log snr 21 % better to 65 % worse.
    clock = t.expand_as(channel.snr)
    start, now = nodes(clock)[:-1], inside(clock)
    flow = kernels.matmul(kernels.matmul(end_root, turn), start_inverse)
    exact = Tables(flow, weights(force), weights(force * _ahead(now, start, panels.step, parts)))
    if process.controlled:
        control = inside(0.5 * beta * process.per_a / last)
        slope = weights(control * _ahead(now, start, panels.step))
        exact = exact._replace(control=weights(control), control_slope=slope)
    if not all(bool(torch.isfinite(e).all()) for e in (*sum(exact.flow, ()), *exact.held, *exact.slope)):
        raise FloatingPointError(f"exponential: the {process.method} process's own laws are not finite on this grid")
    return exact


def _ahead(clock: Tensor, start: Tensor, step: Tensor, parts: int = 1) -> Tensor:
    """How far `clock` (panels, 8, *shape) is beyond the last value known, as a share of the way from the one before.

    start: the clock at the starts of all steps, of which every `parts`-th has a value. step: that a panel is part of.
    """
    known = start[::parts]
    gap = known - torch.cat([known[:1] + torch.inf, known[:-1]])  # the first value has no past: no slope
    return (clock - known[step // parts][:, None]) / gap[step // parts][:, None]


def refined(times: Tensor, parts: int) -> Tensor:
    """The grid `times` with every step in as many equal parts."""
    share = torch.arange(parts, dtype=times.dtype) / parts
    return torch.cat([(times[:-1, None] + share * (times[1:] - times[:-1])[:, None]).flatten(), times[-1:]])


class Exponential(Solver):
    """Adams–Bashforth 2 in the network's output (its first step of order 1); one evaluation, order 2.

    Exact in any number of steps where the network is zero, Gaussian data; with velocity best on a uniform grid, power 1
    of `time_grid` (SGM: power 2). What the network sees of a state is z = inp . a, of variance 1 in each
    direction under the process's own law: FloatingPointError if a batch is more than 5 times as wide (20 with context).

    control_parts: of every step of a mixture process, in each of which its control, known without the network, is taken
    anew (default 4: more of them cost no evaluation of the network, but time).
    """

    name = "exponential"
    exact = True
    order = 2

    def __init__(self, control_parts: int = CONTROL_PARTS) -> None:
        self.control_parts = checks.positive_int("control_parts", control_parts)

    def prepare(self) -> None:
        super().prepare()
        self.parts = self.control_parts if self.process.controlled else 1
        fine = self.times if self.parts == 1 else refined(self.times, self.parts)
        self.fine = self.table if self.parts == 1 else self.coefficients(fine)
        exact, device = tables(self.process, fine, self.parts), self.score.device

        def cast(row: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(e.to(device, torch.float32) for e in row)

        self.flow = tuple(map(cast, exact.flow))
        self.weights = [(cast(exact.held), cast(exact.slope)), (cast(exact.control), cast(exact.control_slope))]
        self.last: tuple[int, list[Tensor]] = (-1, [])  # the last step, the network's output and the control in it

    def step(self, a: Tensor, i: int, noise: Noise) -> Tensor:
        first = i * self.parts
        at = self.fine.at(first)
        network = self.score.residual(a, at, self.context)
        before = self.last[1] if self.order == 2 and self.last[0] == i - 1 else []
        for j in range(first, first + self.parts):
            at, forces = at if j == first else self.fine.at(j), [network]
            if at.potential:
                forces.append(combine(at.linear, a) - self.score.control(a, at))
            moved = [combine(cut(row, j), a) for row in self.flow]
            for n, (force, (held, slope)) in enumerate(zip(forces, self.weights)):
                moved = [torch.addcmul(m, w[j], force) for m, w in zip(moved, held)]
                if n < len(before):
                    moved = [torch.addcmul(m, w[j], force - before[n]) for m, w in zip(moved, slope)]
            if self.order == 2 and at.potential:
                before = [*(before[:1] or forces[:1]), forces[1]]
            a = torch.stack(moved, 1)
        self.last = (i, forces)
        self.check(a, i + 1)
        return a

    def check(self, a: Tensor, i: int) -> None:
        """FloatingPointError if the states at times[i] have left the process's law."""
        z = combine(cut(self.table.inp, i), a)
        width = float(z.square().mean().sqrt())
        most = WIDEST if self.context is None else WIDEST_GIVEN
        if not width <= most * (1 + 100 / z.numel()) ** 0.5:  # few draws of a heavy tail may be far out
            state = f"{width:.3g} times as wide as the process's own law" if math.isfinite(width) else "not finite"
            raise FloatingPointError(
                f"{self.name}: at t = {float(self.times[i]):.4g} of steps={len(self.h)} the samples are {state}: the "
                "network is worse than none; train it longer or use solver='heun'"
            )


class Exponential1(Exponential):
    """The network's output held over the step; one evaluation, order 1. Otherwise as `Exponential`."""

    name = "exponential-1"
    order = 1


def cut(row: tuple[Tensor, ...], i: int) -> tuple[Tensor, ...]:
    """Entries of step or node i."""
    return tuple(e[i] for e in row)
