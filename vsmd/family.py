"""The family's front door: the methods by name, with every argument checked."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from vsmd import checks, messages
from vsmd.bases import Basis, Coordinates, Orthogonal, basis_of
from vsmd.bridges import MixtureProcess, check_prior
from vsmd.methods import METHODS, Method, tied_friction
from vsmd.priors import PRIORS
from vsmd.processes import ForwardProcess
from vsmd.schedules import BetaSchedule

VARIATIONAL_SCORES = ("zero", "adaptive", "steered", "mixture")
SCORE_MATCHING = ("hybrid", "plain")
GAMMAS = 1e3  # gamma at most, 1/gamma at most: far beyond, products of rates overflow
STIFFEST = 1e100  # of an A given by hand: its square is a number


def forward_process(
    method: str,
    shape: tuple[int, ...],
    *,
    beta: float | BetaSchedule = 5.0,
    gamma: float = 2.0,
    damping: float | None = None,
    variational_score: str | float | Tensor | None = None,
    prior: str = "moments",
    basis: str | Tensor | Basis = "coordinates",
    score_matching: str = "hybrid",
) -> ForwardProcess:
    r"""Return the forward process of a method, paper (5) and (15), over t in [0, 1]; x: data in the units of `fit`.

        dx = (beta/2) v dt,   dv = -(beta/2) ((1 - 2 gamma A_x) x + gamma (1 - 2 A_v) v) dt + sqrt(beta gamma) dw

    or, without velocity, dx = -(beta/2) (1 - 2 A) x dt + sqrt(beta) dw.

    method: "SGM", "VSDM" (without velocity), "CLD", "ULD", "VSCLD" or "VSULD"; any row of `METHODS`.
    shape: of one data point, a tuple of integers >= 1.
    beta: noise rate per unit of time, 1e-6 to 1e6 (constant, default 5) or a `BetaSchedule`.
    gamma: friction scale, .001 to 1,000 (default 2).
    damping: R = zeta^2, the damping ratio squared: 1 for CLD and VSCLD, in (0, 1) for ULD and VSULD (default .7), None
        for methods without velocity.
    variational_score: "zero", "adaptive", "steered" (A_t in closed form from the data's moments, `vsmd.steering`) or
        "mixture" (fitted so that the process ends in the prior, `vsmd.bridges`); or a constant A_x by hand – a number,
        a tensor `shape` or a symmetric (d, d) matrix – with A_v tied to it by (14). Default: the method's own.
    prior: law that generation starts from: "moments" N(0, S_1) (default), "gaussian" N(0, Sigma_{1|0}) (the paper's),
        both with the x-v covariance; or the law of a_1 itself: "mixture" (fitted by EM) or "empirical" (the training
        points through the kernel, kept in the model).
    basis: directions in which A is diagonal: "coordinates" (default), "principal" (the data's principal axes), "cosine"
        (of images), or an orthogonal matrix (d, d) with the directions as columns; see `vsmd.bases`.
    score_matching: "hybrid" (v_0 marginalised, default) or "plain".

    Raises ValueError naming the argument, its value and what is allowed.
    """
    row = METHODS[checks.one_of("method", method, METHODS)]
    if not isinstance(shape, (tuple, list, torch.Size)) or not shape:
        raise ValueError(f"shape={messages.told(shape)}: must be a non-empty tuple of integers >= 1")
    shape = tuple(checks.positive_int("shape", n) for n in shape)
    schedule, gamma = BetaSchedule.of(beta), checks.positive("gamma", gamma, GAMMAS)
    damping, mode = _damping(method, row, damping), _mode(row, variational_score)
    directions, stiffness = basis_of(basis, shape), torch.full((1, *shape), row.stiffness, dtype=torch.float64)
    if variational_score is not None and not isinstance(variational_score, str):
        stiffness, axes = _by_hand(variational_score, shape, gamma if row.k == 2 else 1.0)
        if axes is not None and not isinstance(directions, Coordinates):
            raise ValueError(f"basis={messages.told(basis)}: a full A has its own eigenvectors; leave basis out")
        directions = directions if axes is None else Orthogonal.of(axes, shape)
    return _kind(mode, prior, score_matching)(
        method=method,
        shape=shape,
        schedule=schedule,
        gamma=gamma,
        damping=damping,
        variational_score=mode,
        prior=checks.one_of("prior", prior, PRIORS),
        score_matching=checks.one_of("score_matching", score_matching, SCORE_MATCHING),
        constant=(stiffness,) if damping is None else (stiffness, tied_friction(stiffness, gamma, damping)),
        basis=directions,
    )


def _mode(row: Method, variational_score: str | float | Tensor | None) -> str:
    """How A is found, checked: as the method has it by default, by name, or "fixed" where A itself is given."""
    if variational_score is None:
        return row.variational_score
    if not isinstance(variational_score, str):
        return "fixed"
    allowed = VARIATIONAL_SCORES if row.stiffness == 1 else (row.variational_score,)
    return checks.one_of("variational_score", variational_score, allowed)


def _kind(mode: str, prior: str, score_matching: str) -> type[ForwardProcess]:
    """The class of processes whose A is found so; of a mixture, with the priors and the score matching that it has."""
    if mode != "mixture":
        return ForwardProcess
    check_prior(prior)
    checks.one_of("score_matching (with variational_score='mixture')", score_matching, ("hybrid",))
    return MixtureProcess


def _damping(method: str, row: Method, damping: float | None) -> float | None:
    """R, checked: None without velocity, 1 where the method is critical, below where it is underdamped."""
    if row.damping is None:
        if damping is not None:
            raise ValueError(f"damping={messages.told(damping)}: {method} has no velocity; leave damping out")
        return None
    damping = checks.positive("damping", row.damping if damping is None else damping)
    critical = row.damping == 1.0
    other = {"CLD": "ULD", "ULD": "CLD", "VSCLD": "VSULD", "VSULD": "VSCLD"}.get(method, "another method")
    if critical and damping != 1.0:
        raise ValueError(f"damping={damping!r}: {method} is critically damped (R = 1); use {other}")
    if not critical and damping >= 1.0:
        raise ValueError(f"damping={damping!r}: {method} is underdamped, 0 < R < 1; use {other} for R = 1")
    return damping


def _by_hand(a: Any, shape: tuple[int, ...], per_a: float) -> tuple[Tensor, Tensor | None]:
    """Check an A given by hand; return the stiffness (1, *shape) and, for a full matrix, its eigenvectors (d, d)."""
    a = torch.as_tensor(a, dtype=torch.float64)
    dim = math.prod(shape)
    axes = None
    if not bool(torch.isfinite(a).all()):
        raise ValueError("variational_score: A must be finite")
    if a.shape == (dim, dim) and a.shape != shape:
        if not torch.allclose(a, a.T, rtol=1e-10, atol=1e-12):
            raise ValueError("variational_score: a full A must be symmetric")
        a, axes = torch.linalg.eigh(a)
        a = a.view(shape)
    elif a.ndim and a.shape != shape:
        raise ValueError(f"variational_score: A has shape {tuple(a.shape)}, must be a number, {shape} or {(dim, dim)}")
    s = 1 - 2 * per_a * a.expand(shape)
    if not bool(((s > 0) & (s <= STIFFEST)).all()):
        worst = f"{s.min():.4g} at its least, must be > 0" if s.min() <= 0 else f"{s.max():.4g}, at most {STIFFEST:g}"
        raise ValueError(f"variational_score: stiffness 1 - {2 * per_a:g} A is {worst} (A < {0.5 / per_a:g})")
    return s[None], axes
