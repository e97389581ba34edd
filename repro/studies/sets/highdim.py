"""A generated data set in 64 dimensions: four non-Gaussian planes among Gaussian directions, turned at random."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from repro.studies.sets.toys import Sampler, checkerboard_6x, eight_gaussians, spiral_8y
from vsmd import checks
from vsmd.random import generator

DIM = 64
STD_MIN, STD_MAX = 0.1, 20.0
SHAPES = ("spiral", "8gaussians", "checkerboard", "spiral")  # of the blocks, in order


def _spiral_moments() -> tuple[Tensor, Tensor]:
    """Mean and covariance of the spiral before its stretch: quadrature over s = √u, whose density is 2s."""
    node, weight = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(80))
    s = (node + 1) / 2
    angle = 3 * math.pi * s - math.pi / 2
    curve = 0.4 * (angle + math.pi) * torch.stack([angle.cos(), angle.sin()])
    mean = curve @ (weight * s)
    centred = curve - mean[:, None]
    return mean, (centred * (weight * s)) @ centred.T + 0.1**2 * torch.eye(2, dtype=torch.float64)


@cache
def _shape(name: str) -> tuple[Sampler, Tensor, Tensor, Tensor]:
    """Sampler, its axes' stretch, and the exact mean and covariance without that stretch."""
    eye, ones = torch.eye(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    if name == "spiral":
        return spiral_8y, torch.tensor([1.0, 8.0], dtype=torch.float64), *_spiral_moments()
    if name == "8gaussians":
        return eight_gaussians, ones, 0 * ones, (12.5 + math.sqrt(0.1)) * eye
    variance, covariance = (4 * math.pi) ** 2 / 12, -(math.pi**2) / 4
    cov = torch.full((2, 2), covariance, dtype=torch.float64).fill_diagonal_(variance)
    return checkerboard_6x, torch.tensor([6.0, 1.0], dtype=torch.float64), 0 * ones, cov


def white_block(name: str, n: int, stream: torch.Generator) -> Tensor:
    """n points (n, 2) of the plane set `name` with mean 0 and covariance I exactly: C^{-1/2}(x - m), float64."""
    sampler, stretch, mean, cov = _shape(checks.one_of("name", name, dict.fromkeys(SHAPES)))
    values, vectors = torch.linalg.eigh(cov)
    root = (vectors / values.sqrt()) @ vectors.T
    device = stream.device
    return (sampler(n, stream).double() / stretch.to(device) - mean.to(device)) @ root.to(device)


@dataclass(frozen=True, eq=False)
class Blocks:
    """A sampler (n, generator) -> (n, 64) float32, and the coordinates in which it is simple.

    x = rotation (std w): w has mean 0 and covariance I; its planes `planes` (4, 2) hold the sets `SHAPES`, independent
    of each other, and the `rest` (56,) is N(0, I). The columns of `rotation` are therefore the principal axes, with
    standard deviations `std` (64,), all distinct.
    """

    rotation: Tensor
    std: Tensor
    planes: Tensor
    rest: Tensor

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        shape, device = (checks.positive_int("n", n), DIM), generator.device
        w = torch.randn(shape, generator=generator, device=device, dtype=torch.float64)
        for name, plane in zip(SHAPES, self.planes.to(device), strict=True):
            w[:, plane] = white_block(name, n, generator)
        return ((w * self.std.to(device)) @ self.rotation.T.to(device)).float()

    def whiten(self, x: Tensor) -> Tensor:
        """w (n, 64) of points x (n, 64), float64: every direction's true mean 0 and standard deviation 1."""
        if x.ndim != 2 or x.shape[1] != DIM:
            raise ValueError(f"x: shape {tuple(x.shape)}; must be (n, {DIM})")
        return x.double() @ self.rotation.to(x.device) / self.std.to(x.device)


@cache
def blocks_64() -> Blocks:
    """The set "blocks-64": two spirals, eight Gaussians and a checkerboard, one plane each, in 64 dimensions.

    Standard deviations 0.1 … 20, log-spaced (neighbours differ by 8.8 %) and dealt to the directions at random, then a
    random rotation; both fixed once and for all, pure functions of a fixed seed.
    """
    # of the seeds tried the one whose planes have axes at least 10 times apart, some of them large, some small
    order = torch.randperm(DIM, generator=generator(29, "blocks-64", "directions"))
    std = torch.logspace(math.log10(STD_MIN), math.log10(STD_MAX), DIM, dtype=torch.float64)
    normal = torch.randn(DIM, DIM, generator=generator(0, "blocks-64", "rotation"), dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    planes = torch.arange(2 * len(SHAPES)).view(-1, 2)
    return Blocks(q * r.diagonal().sign(), std[order], planes, torch.arange(planes.numel(), DIM))
