"""What a constant variational score is: other units and another clock, direction by direction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vsmd import kernels
from vsmd.processes import ForwardProcess


def units_and_clock(process: ForwardProcess, plain: ForwardProcess, times: Sequence[float]) -> tuple[float, float]:
    r"""How far a process with constant A is from the plain method in other units and on another clock: mean, noise.

    Direction by direction, without velocity x' = sqrt(D) x and beta' = D beta; with velocity, A_v tied by (14),

        x' = s^(3/4) x,   v' = s^(1/4) v,   beta' = sqrt(s) beta.

    `plain` has one direction and A = 0; the same beta, its clock is run faster.
    Greatest differences of F' = U F U^{-1} and N' = U N U from the plain ones, the latter in standard deviations.
    """
    t = torch.tensor(times, dtype=torch.float64)
    tau, ours = process.schedule.clock(t), process.kernel(t)
    units: tuple[Tensor, ...]
    s = process.stiffness[0].double()
    if process.k == 1:
        units, faster = (s.sqrt(),), s
        reference = kernels.overdamped(tau[:, None] * faster, torch.ones((), dtype=torch.float64))
    else:
        units, faster = (s**0.75, s**0.25), s.sqrt()
        friction = plain.constant[1][0].double()
        reference = kernels.momentum(tau[:, None] * faster, torch.ones_like(friction), friction, process.gamma)
    size = range(process.k)
    mean = [[units[i] * ours.mean[i][j] / units[j] - reference.mean[i][j] for j in size] for i in size]
    scale = [reference.noise[i][i].sqrt() for i in size]
    noise = [
        [(units[i] * ours.noise[i][j] * units[j] - reference.noise[i][j]) / (scale[i] * scale[j]) for j in size]
        for i in size
    ]
    return tuple(max(float(e.abs().max()) for row in m for e in row) for m in (mean, noise))  # type: ignore[return-value]
