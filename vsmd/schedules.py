"""Noise schedules beta(t) and the clock tau(t) = 1/2 int_0^t beta that all kernels run on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vsmd import checks

RATES = 1e6  # beta at most, 1/beta at most: far below, nothing moves in double precision, far above rates overflow


@dataclass(frozen=True)
class BetaSchedule:
    """beta(t) = b_min + (b_max - b_min) t^power on t in [0, 1], the noise rate per unit of time.

    b_min, b_max: its values at t = 0 and t = 1, 1e-6 <= b_min <= b_max <= 1e6; constant where they are equal.
    power: > 0, default 1, SGM's VP schedule; VSDM-10 has 1.7 with b_min = .1, b_max = 10.

    Raises ValueError naming the argument, its value and what is allowed.
    """

    b_min: float
    b_max: float
    power: float = 1.0

    def __post_init__(self) -> None:
        checks.positive("b_min", self.b_min, RATES)
        checks.positive("power", self.power)
        if checks.positive("b_max", self.b_max, RATES) < self.b_min:
            raise ValueError(f"b_max={self.b_max!r}: must be at least b_min={self.b_min!r}")

    @classmethod
    def of(cls, beta: float | BetaSchedule) -> BetaSchedule:
        """Return `beta` itself if it is a schedule, else the constant one (ValueError unless beta is 1e-6 to 1e6)."""
        if isinstance(beta, BetaSchedule):
            return beta
        return cls(checks.positive("beta", beta, RATES), float(beta))

    def beta(self, t: Tensor) -> Tensor:
        """beta(t), same shape and dtype as t."""
        return self.b_min + (self.b_max - self.b_min) * t**self.power

    def clock(self, t: Tensor) -> Tensor:
        """tau(t) = 1/2 int_0^t beta(u) du in float64."""
        t = t.to(torch.float64)
        return 0.5 * (self.b_min * t + (self.b_max - self.b_min) * t ** (self.power + 1) / (self.power + 1))
