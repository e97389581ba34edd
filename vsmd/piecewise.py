"""A variational score that is constant on the pieces of a uniform grid of [0, 1]: exact steps, composed."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from vsmd import kernels
from vsmd.kernels import Kernel, Matrix
from vsmd.schedules import BetaSchedule


class Piecewise:
    """Kernels at times t in [0, 1] of a process with rates (s, c), or (D,), given per piece, (pieces, *shape).

    One piece: the closed form. More: the exact kernels of the pieces composed, because (7) and (8) of the paper hold
    for commuting matrices only.
    """

    def __init__(self, rates: tuple[Tensor, ...], gamma: float, schedule: BetaSchedule) -> None:
        self._rates, self.gamma, self.schedule = rates, gamma, schedule
        self.pieces, self.k, self._axes = len(rates[0]), len(rates), [1] * (rates[0].ndim - 1)

    def _clock(self, t: Tensor) -> Tensor:
        return self.schedule.clock(t).view(-1, *self._axes)

    def piece(self, t: Tensor) -> Tensor:
        """Which piece each time lies in, (n,)."""
        return (t * self.pieces).long().clamp(0, self.pieces - 1)

    @cached_property
    def _whole(self) -> kernels.Momentum:
        s, c = self._rates
        return kernels.Momentum(s, c, self.gamma)  # one piece: what depends on directions, once

    def _step(self, tau: Tensor, piece: Tensor) -> Kernel:
        if self.k == 1:
            return kernels.overdamped(tau, self._rates[0][piece])
        if self.pieces == 1:
            return self._whole(tau)
        s, c = self._rates
        return kernels.momentum(tau, s[piece], c[piece], self.gamma)

    @cached_property
    def _before(self) -> tuple[Tensor, Kernel]:
        """The clock where each piece starts (pieces, 1…), and the kernel from 0 to there, entries (pieces, *shape)."""
        starts = self._clock(torch.linspace(0, 1, self.pieces + 1, dtype=torch.float64))
        each = self._step(starts.diff(dim=0), torch.arange(self.pieces))
        one = torch.ones_like(self._rates[0][0])
        eye = tuple(tuple(one * float(i == j) for j in range(self.k)) for i in range(self.k))
        kernel = Kernel(eye, tuple(tuple(0 * e for e in row) for row in eye))
        kernels_before = [kernel]
        for j in range(self.pieces - 1):
            kernel = kernels.compose(kernel, each.map(lambda e, j=j: e[j]))  # type: ignore[misc]
            kernels_before.append(kernel)

        def stacked(matrices: list[Matrix]) -> Matrix:
            size = range(self.k)
            return tuple(tuple(torch.stack([m[i][j] for m in matrices]) for j in size) for i in size)

        return starts, Kernel(stacked([k.mean for k in kernels_before]), stacked([k.noise for k in kernels_before]))

    def kernel(self, t: Tensor) -> Kernel:
        """The kernel from 0 to times t (n,): F and N, k x k entries (n, *shape)."""
        piece = self.piece(t)
        if self.pieces == 1:
            return self._step(self._clock(t), piece[:1] * 0)
        starts, before = self._before
        rest = (self._clock(t) - starts[piece]).clamp(min=torch.finfo(torch.float64).tiny)
        return kernels.compose(before.map(lambda e: e[piece]), self._step(rest, piece))

    def rates(self, t: Tensor, within: Tensor | None = None) -> tuple[Tensor, ...]:
        """(s, c), or (D,), at times t (n,); (n, *shape). `within` (n,) names the pieces by times inside them."""
        piece = self.piece(t if within is None else within)
        return tuple(r[piece] for r in self._rates)
