r"""Splittings of the reverse SDE as in paper (17): A moves x, B kicks v by the stiffness, O is Ornstein–Uhlenbeck.

With step h in r and the clock's dtau = \int beta/2:

    A: x <- x - dtau v      B: v <- v + dtau s x      O: dv = (gamma c v + 2 gamma s_v) dtau + sqrt(2 gamma) dw

O is solved exactly with s_v frozen at its entry; that makes both splittings of order 1 in reverse time.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from vsmd.samplers.base import Solver
from vsmd.scores import Score


class _Splitting(Solver):
    needs_velocity = True
    stochastic = True
    plan: tuple[tuple[str, float], ...]  # (part, share of the step)

    def __init__(self, score: Score, times: Tensor, context: Tensor | None = None) -> None:
        super().__init__(score, times, context)
        clock = self.process.schedule.clock(times)
        self.dtau = [float(a - b) for a, b in pairwise(clock)]
        gamma = self.process.gamma
        # stiffness and friction at each node, read back from the drift's row
        half = self.table.beta / 2
        self.s, gc = self.table.row[0] / half, self.table.row[1] / half
        step = torch.tensor(self.dtau).view(-1, *[1] * (gc.ndim - 1)).to(gc)
        grow = gc[:-1] * step
        safe = torch.where(grow.abs() < 1e-6, torch.ones_like(grow), grow)
        ratio = torch.where(grow.abs() < 1e-6, 1 + grow / 2, torch.expm1(safe) / safe)
        ratio2 = torch.where(grow.abs() < 1e-6, 1 + grow, torch.expm1(2 * safe) / (2 * safe))
        self.grow = grow.exp()
        self.pull = 2 * gamma * step * ratio
        self.kick = (2 * gamma * step * ratio2).sqrt()

    def step(self, a: Tensor, i: int, generator: torch.Generator | None = None) -> Tensor:
        x, v = a[:, 0], a[:, 1]
        for part, share in self.plan:
            if part == "A":
                x = x - (share * self.dtau[i]) * v
            elif part == "B":
                v = v + (share * self.dtau[i]) * self.s[i] * x
            else:
                score = self.score(torch.stack([x, v], 1), self.table.at(i), self.context)
                xi = torch.randn(v.shape, generator=generator, dtype=v.dtype, device="cpu").to(v.device)
                v = self.grow[i] * v + self.pull[i] * score + self.kick[i] * xi
        return torch.stack([x, v], 1)


class ABOBA(_Splitting):
    """A/2 B/2 O B/2 A/2, one evaluation a step."""

    plan = (("A", 0.5), ("B", 0.5), ("O", 1.0), ("B", 0.5), ("A", 0.5))


class BAOAB(_Splitting):
    """B/2 A/2 O A/2 B/2, one evaluation a step."""

    plan = (("B", 0.5), ("A", 0.5), ("O", 1.0), ("A", 0.5), ("B", 0.5))
