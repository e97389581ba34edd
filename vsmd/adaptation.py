r"""Stochastic approximation of the variational score, paper (13): (moments of a backward simulation, A) -> A, pure.

Per direction and piece of the grid, with z the frozen backward policy over g and weight w = beta gamma dt,

    J(A) = sum w [ 1/2 E (A a)^2 + tr A_v + interaction E (A a) z ],     A a = A_x x + A_v v,

so five moments are sufficient: E x^2, E xv, E v^2, E zx, E zv. J is quadratic in an untied (A_x, A_v) and a quartic in
q = sqrt s under the damping transform (14), A_x = (1 - q^2)/(2 gamma), A_v = 1/2 - (sqrt R/gamma) q. In the overdamped
family J(A) = sum w [1/2 A^2 E x^2 + A + interaction A E zx]. The leading minus of (13) as printed is a slip.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vsmd import checks
from vsmd.bases import Coordinates
from vsmd.methods import tied_friction
from vsmd.processes import ForwardProcess

POLICIES = ("duality", "score")
STARTS = ("target", "terminal")
RULES = ("minimiser", "gradient")
FREE = ("A_x", "A_v")


@dataclass(frozen=True)
class Adaptation:
    """How A is adapted during training; the defaults are the reading of the paper that has a finite fixed point.

        A <- A + eta_k (argmin J - A)  or  A <- A - eta_k dJ/dA,     eta_k = eta / (1 + k)^alpha in round k = 0, 1, ...

    rounds: backward simulations (default 30), spread evenly over training.
    begin, end: shares of the training steps between which they fall, 0 <= begin < end <= 1 (default .05, .7).
    eta, alpha: eta > 0 (default 1) and alpha in [0, 1] (default .6); above 1/2 the eta_k^2 have a finite sum.
    rule: "minimiser" (default) of J, or "gradient" of J per unit of weight.
    policy: z = s - A a ("duality", default), or z = s ("score", the released code's).
    start: of a simulation, the reference's stationary law ("target", default) or N(0, Sigma_{1|0}) ("terminal",
        Algorithm 2's).
    max_prior_kl: nats per direction, > 0 (default 1e-3): a constant tied A is projected onto the stiffnesses from which
        on KL(N(0, S_1) || N(0, Sigma_{1|0})) is within it (`least_stiffness`); None leaves this constraint out.
    free: the parameter that a gradient step moves, "A_x" (default, Algorithm 1) or "A_v".
    tied: keep the damping transform (14) (default True).
    interaction: weight of the term (A a) z (default 1).
    pieces: of the piecewise-constant A_t (default 1).
    paths, nodes: backward paths and steps of a simulation (default 1,000 and 40).

    Raises ValueError naming the argument, its value and what is allowed.
    """

    rounds: int = 30
    begin: float = 0.05
    end: float = 0.7
    eta: float = 1.0
    alpha: float = 0.6
    rule: str = "minimiser"
    policy: str = "duality"
    start: str = "target"
    max_prior_kl: float | None = 1e-3
    free: str = "A_x"
    tied: bool = True
    interaction: float = 1.0
    pieces: int = 1
    paths: int = 1_000
    nodes: int = 40

    def __post_init__(self) -> None:
        for name, allowed in (("rule", RULES), ("policy", POLICIES), ("start", STARTS), ("free", FREE)):
            checks.one_of(name, getattr(self, name), allowed)
        for name in ("rounds", "pieces", "paths", "nodes"):
            checks.positive_int(name, getattr(self, name))
        checks.flag("tied", self.tied)
        checks.positive("eta", self.eta)
        if self.max_prior_kl is not None:
            checks.positive("max_prior_kl", self.max_prior_kl)
        checks.in_range("alpha", self.alpha, 0.0, 1.0)
        if not checks.in_range("begin", self.begin, 0, 1) < checks.in_range("end", self.end, 0, 1):
            raise ValueError(f"begin={self.begin!r}, end={self.end!r}: must satisfy 0 <= begin < end <= 1")

    def step_size(self, k: int) -> float:
        """eta_k of round k = 0, 1, …, at most 1 for the minimiser rule."""
        eta = self.eta / (1 + k) ** self.alpha
        return min(eta, 1.0) if self.rule == "minimiser" else eta

    def schedule(self, steps: int) -> list[int]:
        """Training steps after which A is adapted: `rounds` of them between begin and end."""
        marks = np.linspace(self.begin, self.end, self.rounds)
        return sorted({max(1, round(m * steps)) for m in marks})


class PathMoments(NamedTuple):
    """Sums of w E[.] over the nodes of each piece, (pieces, *shape), and the sum of w itself, (pieces, 1…).

    s is the score; moments of the policy z follow (`policy_moments`).
    """

    weight: Tensor
    xx: Tensor
    sx: Tensor
    xv: Tensor
    vv: Tensor
    sv: Tensor


def policy_moments(process: ForwardProcess, moments: PathMoments, policy: str) -> tuple[Tensor, Tensor]:
    """Sums of w E[z x] and w E[z v] for the frozen policy."""
    _, xx, sx, xv, vv, sv = moments
    if policy == "score":
        return sx, sv
    a_x, a_v = process.a_x, process.a_v
    if a_v is None:
        return sx - a_x * xx, sv
    return sx - a_x * xx - a_v * xv, sv - a_x * xv - a_v * vv


def gradient(process: ForwardProcess, moments: PathMoments, adaptation: Adaptation) -> tuple[Tensor, Tensor]:
    """dJ/dA_x and dJ/dA_v at the process's A, per unit of weight; (pieces, *shape) each."""
    zx, zv = policy_moments(process, moments, adaptation.policy)
    weight, xx, _, xv, vv, _ = moments
    a_x, a_v, interaction = process.a_x, process.a_v, adaptation.interaction
    if a_v is None:
        return (a_x * xx + weight + interaction * zx) / weight, torch.zeros_like(zx)
    g_x = a_x * xx + a_v * xv + interaction * zx
    g_v = a_x * xv + a_v * vv + weight + interaction * zv
    return g_x / weight, g_v / weight


def minimiser(process: ForwardProcess, moments: PathMoments, adaptation: Adaptation) -> tuple[Tensor, Tensor | None]:
    """The exact minimiser (A_x, A_v) of J for these moments, (pieces, *shape); the old A where there is none."""
    zx, zv = (adaptation.interaction * z for z in policy_moments(process, moments, adaptation.policy))
    weight, xx, _, xv, vv, _ = moments
    if process.k == 1:
        return -(weight + zx) / xx, None
    if not adaptation.tied:  # 2x2 linear system per direction
        det = xx * vv - xv.square()
        b_x, b_v = -zx, -(weight + zv)
        return (vv * b_x - xv * b_v) / det, (xx * b_v - xv * b_x) / det
    assert process.damping is not None
    g, root = process.gamma, process.damping**0.5
    r = root / g
    cubic = [  # dJ/dq = 0, highest power first
        -xx / (2 * g),
        -r * xv - root * xv / (2 * g),
        xx / (2 * g) + xv / 2 + zx - root * r * vv,
        root * (xv / (2 * g) + vv / 2 + weight + zv),
    ]
    q, candidate = _positive_roots(torch.stack(torch.broadcast_tensors(*cubic), -1))
    a_x, a_v = (1 - q.square()) / (2 * g), 0.5 - r * q
    value = (
        0.5 * (a_x.square() * xx[..., None] + a_v.square() * vv[..., None]) + a_x * a_v * xv[..., None]
        + a_v * weight[..., None] + a_x * zx[..., None] + a_v * zv[..., None]
    )  # fmt: skip
    best = torch.where(candidate, value, torch.inf).argmin(-1, keepdim=True)
    old = process.stiffness.clamp(min=1e-12).sqrt()
    q = torch.where(candidate.any(-1), q.gather(-1, best)[..., 0], old)
    return (1 - q.square()) / (2 * g), 0.5 - r * q


def _positive_roots(cubic: Tensor) -> tuple[Tensor, Tensor]:
    """Real parts (..., 3) of the roots of cubics (..., 4), highest power first, and which are real and positive."""
    monic = -cubic[..., 1:] / cubic[..., :1]
    finite = torch.isfinite(monic).all(-1, keepdim=True)  # LAPACK must not see anything else
    companion = torch.zeros(*monic.shape, 3, dtype=torch.float64)
    companion[..., 0, :] = torch.where(finite, monic, torch.zeros_like(monic))
    companion[..., 1, 0] = companion[..., 2, 1] = 1.0
    roots = torch.linalg.eigvals(companion)
    return roots.real, finite & (roots.imag.abs() < 1e-8 * (1 + roots.real.abs())) & (roots.real > 0)


STIFFNESSES = torch.logspace(-2, 3, 501, dtype=torch.float64)


def least_stiffness(process: ForwardProcess, adaptation: Adaptation) -> Tensor:
    """Least stiffness (*shape) from which on the data's law ends within `max_prior_kl` of the prior; 1e-3 without it.

    A closed form in the data's variance on a grid of stiffnesses (at R < 1 the KL is not monotone). It binds for a
    constant tied A only: the law of a time-varying or untied one is not a function of one stiffness.
    """
    if adaptation.max_prior_kl is None or not adaptation.tied or process.pieces > 1:
        return torch.full(process.shape, 1e-3, dtype=torch.float64)
    grid = STIFFNESSES.view(-1, *[1] * len(process.shape)).expand(-1, *process.shape)
    flat = dataclasses.replace(process, shape=grid.shape, moments=None, basis=Coordinates(grid.shape))
    flat = flat.with_stiffness(grid[None])
    over = flat.moments_kl(0.0, process.known().var) > adaptation.max_prior_kl
    index = torch.arange(1, len(STIFFNESSES) + 1).view(-1, *[1] * len(process.shape))
    last = torch.where(over, index, torch.zeros_like(index)).amax(0)
    return STIFFNESSES[last.clamp(max=len(STIFFNESSES) - 1)]


def update(
    process: ForwardProcess, moments: PathMoments, adaptation: Adaptation, k: int, least: Tensor
) -> ForwardProcess:
    """The process after round k: A moved by eta_k, kept where stiffness and friction are positive; never NaN.

    A tied or overdamped A moves in q = sqrt s (minimiser) or in the free parameter (gradient) and is projected onto
    s >= `least` (from `least_stiffness`); an untied one moves in (A_x, A_v) and may leave the positive set, as the
    exact solution does.
    """
    eta, old_x, old_v = adaptation.step_size(k), process.a_x, process.a_v
    if adaptation.rule == "minimiser":
        a_x, a_v = minimiser(process, moments, adaptation)
        new_x = old_x + eta * (a_x - old_x)
        new_v = None if a_v is None or old_v is None else old_v + eta * (a_v - old_v)
    else:
        g_x, g_v = gradient(process, moments, adaptation)
        new_x, new_v = old_x - eta * g_x, None if old_v is None else old_v - eta * g_v
        if adaptation.tied and old_v is not None and process.damping is not None:
            slope = (process.damping / process.stiffness).sqrt()  # dA_v/dA_x along (14)
            if adaptation.free == "A_x":
                new_x = old_x - eta * (g_x + slope * g_v)
            else:
                c = (1 - 2 * (old_v - eta * (g_v + g_x / slope))).clamp(min=1e-3)
                new_x = (1 - (process.gamma * c / 2).square() / process.damping) / (2 * process.gamma)
    if not adaptation.tied and new_v is not None:
        return _accepted(process, process.with_variational_score(new_x, new_v))
    stiffness = torch.maximum(1 - 2 * process.per_a * new_x, least).clamp(max=1e4)
    friction = None if process.damping is None else tied_friction(stiffness, process.gamma, process.damping)
    return _accepted(process, process.with_rates(stiffness, friction))


def _accepted(process: ForwardProcess, moved: ForwardProcess) -> ForwardProcess:
    """`moved` where its rates are finite and the data vary; a constant direction is left alone."""
    finite = torch.stack([torch.isfinite(rate) for rate in moved.constant]).all(0) & (process.known().var > 0)
    return process.with_rates(*(torch.where(finite, new, old) for new, old in zip(moved.constant, process.constant)))
