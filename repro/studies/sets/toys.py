"""Generated data sets in two dimensions.

A sampler is a callable `(n, generator) -> tensor (n, 2)`, float32 on the generator's device: independent
draws that are a pure function of the generator's state. They are made in float64 and cast, and never
standardised: the anisotropy of the first two sets is their point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from vsmd import checks

Sampler = Callable[[int, torch.Generator], Tensor]


def _uniform(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64)


def _normal(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, 2, generator=generator, device=generator.device, dtype=torch.float64)


def spiral_8y(n: int, generator: torch.Generator) -> Tensor:
    """The spiral of the VSDM and VSMD papers, its second axis stretched by 8; returns (n, 2).

    u ~ U(0, 1), θ = 3π√u - π/2, r = θ + π, x = 0.4 [(r cos θ, r sin θ) + 0.25 N(0, I)], then x₂ ← 8 x₂.
    Standard deviations about (2.1, 18.7), means about (0.9, 1.6).
    """
    angle = 3 * math.pi * _uniform(checks.positive_int("n", n), generator).sqrt() - math.pi / 2
    radius = angle + math.pi
    x = 0.4 * (torch.stack([radius * angle.cos(), radius * angle.sin()], -1) + 0.25 * _normal(n, generator))
    x[:, 1] *= 8
    return x.float()


def checkerboard_6x(n: int, generator: torch.Generator) -> Tensor:
    """The checkerboard of the VSDM and VSMD papers, its first axis stretched by 6; returns (n, 2).

    Uniform on {x ∈ (-2π, 2π)² : sin x₁ · sin x₂ < 0}, then x₁ ← 6 x₁. Mean 0, standard deviations
    4π/√12 · (6, 1) = (21.77, 3.63), covariance -6 π²/4 = -14.8.
    """
    period = 4 * math.pi
    first = period * _uniform(checks.positive_int("n", n), generator)
    second = period * _uniform(n, generator)
    # y -> y + π (modulo 4π) flips the sign of sin y and keeps the measure: exact, and no draw is rejected.
    wrong = first.sin() * second.sin() > 0
    second = torch.where(wrong, (second + math.pi) % period, second)
    return torch.stack([6 * (first - period / 2), second - period / 2], -1).float()


_STD: float = 0.1**0.25  # of a component of the eight Gaussians


def eight_gaussians(n: int, generator: torch.Generator) -> Tensor:
    """Eight equal Gaussians on a circle of radius 5, as `torchcfm.utils.sample_8gaussians`; returns (n, 2).

    That function passes √0.1 as the *covariance*, so the standard deviation of a component is 0.1^¼ = 0.562,
    not √0.1: kept, because the published figures were made with it.
    """
    number = torch.randint(8, (checks.positive_int("n", n),), generator=generator, device=generator.device)
    angle = number.double() * (math.pi / 4)
    x = 5 * torch.stack([angle.cos(), angle.sin()], -1) + _STD * _normal(n, generator)
    return x.float()


def moons(n: int, generator: torch.Generator) -> Tensor:
    """Two half circles, as `torchcfm.utils.sample_moons`; returns (n, 2).

    θ ~ U(0, π); (cos θ, sin θ) or (1 - cos θ, ½ - sin θ), each with probability ½; plus 0.2 U(0, 1), one draw
    for both coordinates (as torchdyn's generator has it); then x ← 3x - 1. Angles and halves are drawn, not
    laid on a grid: the draws are independent.
    """
    angle = math.pi * _uniform(checks.positive_int("n", n), generator)
    inner = _uniform(n, generator) < 0.5
    first = torch.where(inner, 1 - angle.cos(), angle.cos())
    second = torch.where(inner, 0.5 - angle.sin(), angle.sin())
    offset = 0.2 * _uniform(n, generator)
    return (3 * (torch.stack([first, second], -1) + offset[:, None]) - 1).float()


def scurve(n: int, generator: torch.Generator) -> Tensor:
    """The S curve seen from the side, as in the torchcfm and DSBM benchmarks; returns (n, 2).

    θ ~ U(-3π/2, 3π/2), x = 1.5 [(sin θ, sign(θ)(cos θ - 1)) + 0.05 N(0, I)]: coordinates 1 and 3 of
    scikit-learn's `make_s_curve(noise=0.05)`.
    """
    angle = 3 * math.pi * (_uniform(checks.positive_int("n", n), generator) - 0.5)
    curve = torch.stack([angle.sin(), angle.sign() * (angle.cos() - 1)], -1)
    return (1.5 * (curve + 0.05 * _normal(n, generator))).float()


def _rotate(sampler: Sampler, degrees: float, n: int, generator: torch.Generator) -> Tensor:
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    x = sampler(n, generator)
    return x @ x.new_tensor([[cos, sin], [-sin, cos]])


def rotated(sampler: Sampler, degrees: float) -> Sampler:
    """Return `sampler` turned anticlockwise about the origin by `degrees`.

    Its main axes are then no longer the coordinates. The same generator gives the same points, turned.
    ValueError unless `degrees` is a finite number.
    """
    if isinstance(degrees, bool) or not isinstance(degrees, int | float) or not math.isfinite(degrees):
        raise ValueError(f"degrees={degrees!r}: must be a finite number")
    return partial(_rotate, sampler, float(degrees))


def _stretch(sampler: Sampler, factor: float, n: int, generator: torch.Generator) -> Tensor:
    return sampler(n, generator) * torch.tensor([1.0, factor], device=generator.device)


def stretched(sampler: Sampler, factor: float = 8.0) -> Sampler:
    """Return `sampler` with its second axis stretched by `factor`: of the development sets, which no table reports."""
    return partial(_stretch, sampler, float(factor))


TOYS: dict[str, Sampler] = {
    "spiral-8Y": spiral_8y,
    "spiral-8Y-45": rotated(spiral_8y, 45.0),  # no coordinate is a main axis
    "checkerboard-6X": checkerboard_6x,
    "8gaussians": eight_gaussians,
    "moons": moons,
    "scurve": scurve,
    "moons-8Y": stretched(moons),  # development sets: settings are chosen on them, no table reports them
    "scurve-8Y": stretched(scurve),
}


def toy(name: str) -> Sampler:
    """Return the sampler called `name` in `TOYS`; ValueError naming the nearest one if there is none."""
    return TOYS[checks.one_of("name", name, TOYS)]
