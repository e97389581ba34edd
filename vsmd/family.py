"""The family's front door: the six methods by name, with every argument checked."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from vsmd import checks
from vsmd.methods import METHODS, score_of_stiffness
from vsmd.processes import PRIORS, ForwardProcess
from vsmd.schedules import BetaSchedule

VARIATIONAL_SCORES = ("zero", "adaptive", "steered", "fixed")
MATRICES = ("diagonal", "full")
SCORE_MATCHING = ("hybrid", "plain")


def _given_score(a: Any, shape: tuple[int, ...], factor: float) -> tuple[Tensor, Tensor | None]:
    """Check an A given by hand; return the stiffness (1, *shape) and, for a full matrix, its eigenbasis."""
    a = torch.as_tensor(a, dtype=torch.float64)
    dim = math.prod(shape)
    basis = None
    if not bool(torch.isfinite(a).all()):
        raise ValueError("variational_score: A must be finite")
    if a.shape == (dim, dim) and a.shape != shape:
        if not torch.allclose(a, a.T, rtol=1e-10, atol=1e-12):
            raise ValueError("variational_score: a full A must be symmetric")
        a, basis = torch.linalg.eigh(a)
        a, basis = a.view(shape), basis.contiguous()
    elif a.ndim and a.shape != shape:
        raise ValueError(f"variational_score: A has shape {tuple(a.shape)}, must be a number, {shape} or {(dim, dim)}")
    s = 1 - 2 * factor * a.expand(shape)
    if not bool((s > 0).all()):
        raise ValueError(
            f"variational_score: stiffness 1 - {2 * factor:g} A is {s.min():.4g} at its least, must be > 0 "
            f"(A < {0.5 / factor:g})"
        )
    return s[None], basis


def forward_process(
    method: str,
    shape: tuple[int, ...],
    *,
    beta: float | BetaSchedule = 5.0,
    gamma: float = 2.0,
    damping: float | None = None,
    variational_score: str | float | Tensor | None = None,
    prior: str = "gaussian",
    matrix: str = "diagonal",
    score_matching: str = "hybrid",
) -> ForwardProcess:
    """Return the forward process of one of the six methods: SGM, VSDM, CLD, ULD, VSCLD, VSULD.

    shape: of one data point. beta: a number (constant) or a `BetaSchedule`. gamma: friction scale, 2 by default.
    damping: R = zeta^2, 1 for CLD and VSCLD, in (0, 1) for ULD and VSULD (default .7), None for SGM and VSDM.
    variational_score: "zero", "adaptive" (the name sets the default), "steered" (A_t in closed form from the data's
    moments, `vsmd.steering`), or a constant A_x by hand – a number, a tensor `shape` or a symmetric (d, d) matrix –
    with A_v tied to it by (14).
    prior: "gaussian" N(0, Sigma_{1|0}), "moments" N(0, S_1), both with the x-v covariance; or the law of a_1 itself:
    "mixture" (fitted by EM) or "empirical" (the training points through the kernel, kept in the model).
    matrix: "diagonal", or "full" (A a matrix function in the data's principal axes). score_matching: "hybrid" (v_0
    marginalised) or "plain".
    Raises ValueError naming the argument, its value and what is allowed.
    """
    method = checks.one_of("method", method, METHODS)
    k, mode, default_damping = METHODS[method]
    if not isinstance(shape, (tuple, list, torch.Size)) or not shape:
        raise ValueError(f"shape={shape!r}: must be a non-empty tuple of integers >= 1")
    shape = tuple(checks.positive_int("shape", n) for n in shape)
    schedule, gamma = BetaSchedule.of(beta), checks.positive("gamma", gamma)
    if k == 1 and damping is not None:
        raise ValueError(f"damping={damping!r}: {method} has no velocity; leave damping out")
    if k == 2:
        damping = checks.positive("damping", default_damping if damping is None else damping)
        if default_damping == 1.0 and damping != 1.0:
            raise ValueError(
                f"damping={damping!r}: {method} is critically damped (R = 1); use {method.replace('C', 'U')}"
            )
        if default_damping != 1.0 and damping >= 1.0:
            critical = "CLD" if method == "ULD" else "VSCLD"
            raise ValueError(f"damping={damping!r}: {method} is underdamped, 0 < R < 1; use {critical} for R = 1")
    basis = None
    stiffness = torch.ones(1, *shape, dtype=torch.float64)
    matrix = checks.one_of("matrix", matrix, MATRICES)
    if variational_score is None or isinstance(variational_score, str):
        named = mode if variational_score is None else variational_score
        mode = checks.one_of("variational_score", named, [m for m in VARIATIONAL_SCORES if m != "fixed"])
    else:
        mode = "fixed"
        stiffness, basis = _given_score(variational_score, shape, gamma if k == 2 else 1.0)
        matrix = "full" if basis is not None else matrix
    a_x, a_v = score_of_stiffness(stiffness, k, gamma, damping)
    return ForwardProcess(
        method=method,
        shape=shape,
        schedule=schedule,
        gamma=gamma,
        damping=damping,
        variational_score=mode,
        prior=checks.one_of("prior", prior, PRIORS),
        matrix=matrix,
        score_matching=checks.one_of("score_matching", score_matching, SCORE_MATCHING),
        a_x=a_x,
        a_v=a_v,
        basis=basis,
    )
