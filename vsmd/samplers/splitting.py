r"""Splittings of the reverse SDE as in paper (17): A moves x, B kicks v by the stiffness, O is Ornstein–Uhlenbeck.

With step h in r and the clock's dtau = \int beta/2:

    A: x <- x - dtau v      B: v <- v + dtau s x      O: dv = (gamma c v + 2 gamma s_v) dtau + sqrt(2 gamma) dw

As printed, O is solved exactly with s_v frozen at its entry and s, c of the step's first node: order 1 in reverse time.
The midpoint variants take s, c and the score's time at the step's middle and solve O with the score in its own middle,

    v' = v half an O with s_v(x, v),    v <- v the whole O with s_v(x, v'), of the same noise,

which makes them of weak order 2, where beta and A vary with time too.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from vsmd.coefficients import Coefficients
from vsmd.random import Noise
from vsmd.samplers.base import Solver


class OrnsteinUhlenbeck:
    """The exact O over steps dtau of the clock for a frozen score: v <- grow v + pull s_v + kick xi."""

    def __init__(self, dtau: Tensor, gc: Tensor, gamma: float) -> None:
        rate = gc * dtau
        flat = rate.abs() < 1e-6
        safe = torch.where(flat, torch.ones_like(rate), rate)
        ratio = torch.where(flat, 1 + rate / 2, torch.expm1(safe) / safe)
        ratio2 = torch.where(flat, 1 + rate, torch.expm1(2 * safe) / (2 * safe))
        self.grow = rate.exp()
        self.pull = 2 * gamma * dtau * ratio
        self.kick = (2 * gamma * dtau * ratio2).sqrt()


class _Splitting(Solver):
    needs_velocity = True
    stochastic = True
    plan: tuple[tuple[str, float], ...]  # (part, share of the step)

    def prepare(self) -> None:
        super().prepare()
        self.dtau = [float(a - b) for a, b in pairwise(self.process.schedule.clock(self.times))]
        self.frozen = self.freeze()
        self.stiffness, friction = self.frozen.rates
        self.gc = self.process.gamma * friction
        self.o = self.flow(1.0)

    def freeze(self) -> Coefficients:
        """Coefficients that each step is made with."""
        return self.table.at(slice(0, -1))

    def flow(self, share: float) -> OrnsteinUhlenbeck:
        """O over a share of each step."""
        step = torch.tensor(self.dtau).view(-1, *[1] * (self.gc.ndim - 1)).to(self.gc)
        return OrnsteinUhlenbeck(share * step, self.gc, self.process.gamma)

    def step(self, a: Tensor, i: int, noise: Noise) -> Tensor:
        x, v = a[:, 0], a[:, 1]
        for part, share in self.plan:
            if part == "A":
                x = x - (share * self.dtau[i]) * v
            elif part == "B":
                v = v + (share * self.dtau[i]) * self.stiffness[i] * x
            else:
                v = self.ornstein(x, v, i, noise)
        return torch.stack([x, v], 1)

    def ornstein(self, x: Tensor, v: Tensor, i: int, noise: Noise) -> Tensor:
        """O of step i."""
        return self.o.grow[i] * v + self.o.pull[i] * self.v_score(x, v, i) + self.o.kick[i] * noise(v)

    def v_score(self, x: Tensor, v: Tensor, i: int) -> Tensor:
        return self.score(torch.stack([x, v], 1), self.frozen.at(i), self.context)


class _Midpoint(_Splitting):
    evaluations = 2

    def prepare(self) -> None:
        super().prepare()
        self.half = self.flow(0.5)

    def freeze(self) -> Coefficients:
        return self.coefficients((self.times[:-1] + self.times[1:]) / 2)

    def ornstein(self, x: Tensor, v: Tensor, i: int, noise: Noise) -> Tensor:
        half, o = self.half, self.o
        first = half.kick[i] * noise(v)
        middle = half.grow[i] * v + half.pull[i] * self.v_score(x, v, i) + first
        both = half.grow[i] * first + half.kick[i] * noise(v)
        return o.grow[i] * v + o.pull[i] * self.v_score(x, middle, i) + both


class ABOBA(_Splitting):
    """A/2 B/2 O B/2 A/2 as printed, (17): order 1 in reverse time, one evaluation a step."""

    plan = (("A", 0.5), ("B", 0.5), ("O", 1.0), ("B", 0.5), ("A", 0.5))


class BAOAB(_Splitting):
    """B/2 A/2 O A/2 B/2 as printed, (17): order 1 in reverse time, one evaluation a step."""

    plan = (("B", 0.5), ("A", 0.5), ("O", 1.0), ("A", 0.5), ("B", 0.5))


class ABOBAMidpoint(_Midpoint):
    """A/2 B/2 O B/2 A/2 with everything at the step's middle: weak order 2, two evaluations a step."""

    name = "aboba-midpoint"
    plan = ABOBA.plan


class BAOABMidpoint(_Midpoint):
    """B/2 A/2 O A/2 B/2 with everything at the step's middle: weak order 2, two evaluations a step."""

    name = "baoab-midpoint"
    plan = BAOAB.plan
