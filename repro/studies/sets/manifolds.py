"""A curved manifold of known intrinsic dimension d* in R^d: exact draws, and distances that do not depend on d.

    data = manifold(intrinsic=2, ambient=64)
    x = data(1_000, generator)          # (1000, 64): what a model sees
    data.chart(x)                       # (1000, 2): the intrinsic coordinates back

x = Q φ(u), u in R^{d*}: φ bends the plane into 4 d* dimensions, one fixed map for each d*, and Q has orthonormal
columns, so that R^16 and R^64 hold copies of one and the same law: whatever changes with d is the learner's doing.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from vsmd import checks
from vsmd.random import generator

FOLD = 4  # numbers of φ for each intrinsic one
BEND = 0.4  # amplitude of its sines
STRETCH = 4.0  # longest over shortest intrinsic axis
LOBE = 0.4  # where the two bumps of an axis stand


@dataclass(frozen=True, eq=False)
class Manifold:
    """A sampler (n, generator) -> (n, d) float32.

    Intrinsic law: u_i = scale_i (.4 r_i + .6 b_i), r_i = ±1 with equal chances, b_i the mean of three uniforms on
    (-1, 1): 2^{d*} modes, but smooth and of compact, connected support (or W2 of samples would be about the modes'
    shares and nothing else), the axes' scales from 1 down to 1/4. φ(u) = (u, BEND sin(W u + phase)), the rows of
    W (3 d*, d*) of norm π. shift: moves the law along the manifold by `shift` times the scales.
    """

    scale: Tensor
    waves: Tensor
    phase: Tensor
    frame: Tensor
    shift: float = 0.0

    @property
    def intrinsic(self) -> int:
        """d*."""
        return len(self.scale)

    @property
    def ambient(self) -> int:
        """d."""
        return len(self.frame)

    def coordinates(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws of u (n, d*), float64."""
        shape = (checks.positive_int("n", n), self.intrinsic)
        bump = 2 * torch.rand(3, *shape, generator=generator, device=generator.device, dtype=torch.float64).mean(0) - 1
        sign = 2.0 * torch.randint(2, shape, generator=generator, device=generator.device) - 1
        return (LOBE * sign + (1 - LOBE) * bump + self.shift) * self.scale.to(generator.device)

    def embed(self, u: Tensor) -> Tensor:
        """Q φ(u) (n, d), float64."""
        waves, phase, frame = (v.to(u.device) for v in (self.waves, self.phase, self.frame))
        bent = BEND * (u @ waves.T + phase).sin()
        return torch.cat([u, bent], 1) @ frame.T

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        return self.embed(self.coordinates(n, generator)).float()

    def chart(self, x: Tensor) -> Tensor:
        """The first d* numbers of Qᵀx (n, d*), float64: u for points of the manifold, of others their shadow."""
        if x.ndim != 2 or x.shape[1] != self.ambient:
            raise ValueError(f"x: shape {tuple(x.shape)}; must be (n, {self.ambient})")
        return x.double() @ self.frame.to(x.device)[:, : self.intrinsic]

    def off(self, x: Tensor) -> Tensor:
        """How far points x (n, d) lie from the manifold's point above their chart, (n,) float64: ‖x - Q φ(chart x)‖."""
        return (x.double() - self.embed(self.chart(x))).norm(dim=1)

    def shifted(self, shift: float) -> Manifold:
        """The same manifold with its law moved along it."""
        return dataclasses.replace(self, shift=float(shift))


@cache
def manifold(intrinsic: int, ambient: int) -> Manifold:
    """The manifold of dimension `intrinsic` in R^`ambient`; fixed once and for all.

    Raises ValueError for ambient < 4 intrinsic, which cannot hold it.
    """
    inside, outside = checks.positive_int("intrinsic", intrinsic), checks.positive_int("ambient", ambient)
    if outside < FOLD * inside:
        raise ValueError(f"ambient={ambient}: must be at least {FOLD * inside} for intrinsic={intrinsic}")
    scale = torch.logspace(0, -math.log10(STRETCH), inside, dtype=torch.float64)
    stream = generator(0, "manifold", inside)
    waves = torch.randn((FOLD - 1) * inside, inside, generator=stream, dtype=torch.float64)
    waves = math.pi * waves / waves.norm(dim=1, keepdim=True)
    phase = 2 * math.pi * torch.rand(len(waves), generator=stream, dtype=torch.float64)
    normal = torch.randn(outside, FOLD * inside, generator=generator(0, "frame", outside), dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    return Manifold(scale, waves, phase, q * r.diagonal().sign())
