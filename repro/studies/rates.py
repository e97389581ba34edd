"""The terms of Theorems 1 and 3 one at a time, exact on Gaussian data: horizon, score error, A's noise, all at once."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import ndtri

from repro.grid.runs import Result
from repro.studies.convergence import (
    Array,
    Fit,
    Row,
    fit,
    flow_end,
    gaussian_process,
    kl,
    power,
    prior_law,
    rates,
    solver_law,
    target_law,
    w2,
)
from repro.studies.derivations import Zero, as_array, forward_covariance
from repro.studies.mean_fields import mean_field, roots, stiffness_per_a
from vsmd import kernels
from vsmd.processes import ForwardProcess
from vsmd.samplers import make_solver, time_grid
from vsmd.samplers.base import Solver
from vsmd.scores import Score


def spectral_rate(process: ForwardProcess) -> float:
    """Slowest decay of the mean map per unit of the clock: p - Re sqrt(p^2 - s), or D without velocity."""
    s = float(process.stiffness.min())
    if process.damping is None:
        return s
    p = process.gamma * float(process.friction.min()) / 2
    return p - float(np.sqrt(max(p * p - s, 0.0)))


def terms(steps: int, dampings: list[float], std: float = 2.0, beta: float = 5.0) -> Result:
    """All of this file as one run: tables of `horizon`, `decay`, `score_error`, `together` and `adapted` (std 8).

    steps: of the stochastic Heun solver where an exact law is wanted. dampings: R of the decays.
    """
    rows: list[Row] = []
    for method, damping in (("SGM", None), ("CLD", None), ("ULD", 0.7)):
        rows += horizon(method, std, damping)
    for damping in dampings:
        rows += decay(damping, std)
    for method in ("SGM", "CLD"):
        rows += score_error(method, std, beta, steps) + together(method, std, beta, 20, 0.05)
    return Result({"rates": rows + adapted(8.0, beta, steps)})


def horizon(method: str, std: float, damping: float | None = None, longest: float = 40.0) -> list[Row]:
    """Theorem 1's first term: how fast everything falls with beta, which is twice the horizon of the clock.

    rates, x = beta, fitted: minus the exponential rate per unit of beta (critical damping: beside a power of beta, its
    mean map being defective), expected from the drift's spectrum r: forward_kl, KL(S_1 || N(0, Sigma_T)), -2 r;
    forward_kl_point, of a data point at one standard deviation, -r; end_sde and end_flow, the covariance error of
    (x, v) that the exact reverse SDE (forgets its start too: -2 r) and the flow (does not: -r) make of N(0, Sigma_T).
    A = 0, so that Sigma_T is stationary and all differences are products, exact however small.
    """
    betas = np.linspace(longest / 4, longest, 41)
    series: dict[str, list[float]] = {"forward_kl": [], "forward_kl_point": [], "end_sde": [], "end_flow": []}
    for beta in betas:
        process = gaussian_process(method, std, float(beta), damping)
        target, (end, data) = target_law(process), forward_covariance(process, np.array([1.0, 0.0]))
        f = as_array(process.terminal(0.0)[0].mean)

        def moved(m: Array, law: Array) -> Array:
            return np.asarray(m @ law @ m.swapaxes(-1, -2))

        off, point = moved(f, data - target), moved(f, np.diag([0.0, 1.0][: process.k]) - target)  # from the target
        shift = f[0, :, 0] * std
        series["forward_kl"].append(float(kl(off, target)[0]))
        pull = 0.5 * shift @ np.linalg.solve(target[0], shift)
        series["forward_kl_point"].append(float(kl(point, target)[0] + pull))
        series["end_sde"].append(_largest(moved(data @ f.swapaxes(-1, -2) @ np.linalg.inv(end), off), data))
        series["end_flow"].append(_largest(flow_end(process, off), data))
    name = f"{method}{'' if damping is None else f', R {damping:g}'}, std {std:g}"
    rows: list[Row] = []
    for quantity, values in series.items():
        slope = fit(betas, np.log(values), *([np.log(betas)] if process.damping == 1 else []))
        rate = -spectral_rate(process) * (2 if quantity in ("forward_kl", "end_sde") else 1)
        rows += rates(quantity, name, betas, values, slope, rate)
    return rows


def _largest(delta: Array, law: Array) -> float:
    """Largest entry of a covariance's error over standard deviations."""
    d = np.sqrt(np.diagonal(law, axis1=-2, axis2=-1))
    return float(np.abs(delta / (d[..., :, None] * d[..., None, :])).max())


def decay(damping: float, std: float = 2.0, gamma: float = 2.0, longest: float = 12.0) -> list[Row]:
    r"""Lyapunov decay along the forward process of stiffness 1 and friction c = (2/gamma) sqrt(R), in the clock tau.

    rates, x = tau: kl, KL(S_tau || stationary law), fitted: its late exponential rate, expected -4 r; kl_slowest
    (x = R, y: least -d log KL/dtau on the way: near 0 where noise in v alone leaves KL on a plateau) and
    twisted_slowest, the same of E(D a)'P(D a), D = S_tau^{-1} - Sigma^{-1}, with M'P + P M <= -2 r P: at least 2 r.
    """
    c = 2 / gamma * damping**0.5
    drift, stationary = np.array([[0, 1], [-1, -gamma * c]]), np.diag([1 / c, 1 / c])
    tau = np.linspace(0, longest, 241)[1:]
    one = torch.ones((), dtype=torch.float64)
    f = as_array(kernels.momentum(torch.from_numpy(tau), one, c * one, gamma).mean)
    delta = f @ (np.diag([std**2, 1.0]) - stationary) @ f.swapaxes(1, 2)
    values = kl(delta, np.broadcast_to(stationary, delta.shape))
    r = float(-np.linalg.eigvals(drift).real.max())
    late = tau > longest / 3
    slope = fit(tau[late], np.log(values[late]), *([np.log(tau[late])] if damping == 1 else []))
    setting = f"R {damping:g}, std {std:g}"
    rows = rates("kl", setting, tau[::6], values[::6], slope, -4 * r)
    least = float((-np.diff(np.log(values)) / np.diff(tau)).min())
    rows += rates("kl_slowest", setting, [damping], [least], None, 4 * r)
    if damping != 1:  # P = sum of eigenvectors' outer products, which a defective drift has not
        vectors = np.linalg.eig(drift.T)[1]
        p = (vectors @ vectors.conj().T).real
        inverse = np.linalg.inv(stationary)
        law = stationary + delta
        d = np.linalg.inv(law) - inverse
        twisted = np.einsum("nij,jk,nkl,nil->n", d, p, d, law)
        least = float((-np.diff(np.log(twisted)) / np.diff(tau)).min())
        rows += rates("twisted_slowest", setting, [damping], [least], None, 2 * r)
    return rows


def perturbed(process: ForwardProcess, steps: int, eps: float, solver: str = "heun-sde") -> Solver:
    """A solver whose score is off by eps z, z = inp . a of variance 1 under the data's law: E|error|^2 = eps^2."""
    run = make_solver(solver, Score(process, Zero()), time_grid(steps, 1e-2))
    gain = tuple(g + eps * i for g, i in zip(run.table.gain, run.table.inp))
    run.table = run.arrival = run.table._replace(gain=gain)
    return run


def score_error(method: str, std: float, beta: float, steps: int, damping: float | None = None) -> list[Row]:
    """Theorem 1's last term: the error that a score error eps leaves, from the exact S_1, less that of eps = 0.

    rates, x = eps: score_w2 (fitted: exponent, expected 1), score_kl (2), and score_bound (y: KL over Girsanov's bound
    beta g^2 eps^2/2, at most 1).
    """
    process = gaussian_process(method, std, beta, damping)
    start = forward_covariance(process, np.array([1.0]))[0]
    exact = solver_law(perturbed(process, steps, 0.0), start)
    eps = np.geomspace(3e-4, 3e-2, 9)
    laws = [solver_law(perturbed(process, steps, float(e)), start) for e in eps]
    errors = np.array([float(w2(law, exact)[0]) for law in laws])
    kls = np.array([float(kl(exact - law, law)[0]) for law in laws])
    bound = 0.5 * (1 - 1e-2) * beta * (process.gamma if process.k == 2 else 1.0) * eps**2
    name = f"{method}-{beta:g}, std {std:g}"
    rows = rates("score_w2", name, eps, errors, power(eps, errors), 1.0)
    rows += rates("score_kl", name, eps, kls, power(eps, kls), 2.0)
    return rows + rates("score_bound", name, eps, kls / bound, None, 1.0)


def together(method: str, std: float, beta: float, steps: int, eps: float) -> list[Row]:
    """Theorem 1's sum: |std error| of x with a wrong start N(0, Sigma_T), Euler–Maruyama steps and a score error.

    rates, x = 0: term_start, term_step, term_score (each alone), all_terms (fitted: its share of the sum of the three).
    """
    process = gaussian_process(method, std, beta)
    right, end = forward_covariance(process, np.array([1.0, 1e-2]))
    wrong, exact = target_law(process), end

    def error(start: Array, n: int, e: float) -> float:
        solver = "euler-maruyama" if n == steps else "heun-sde"
        return float(w2(solver_law(perturbed(process, n, e, solver), start), exact)[0])

    fine = 400
    terms_alone = {"term_start": error(wrong, fine, 0.0), "term_step": error(right, steps, 0.0)}
    terms_alone["term_score"] = error(right, fine, eps)
    total, share = error(wrong, steps, eps), sum(terms_alone.values())
    name = f"{method}-{beta:g}, std {std:g}, {steps} steps, eps {eps:g}"
    rows = [row for k, v in terms_alone.items() for row in rates(k, name, [0.0], [v])]
    ratio = total / share
    return rows + rates("all_terms", name, [0.0], [total], Fit(ratio, ratio, ratio, 1), 1.0)


def adapted(std: float, beta: float, steps: int, method: str = "VSCLD") -> list[Row]:
    """Theorem 3's term: A = A* + sqrt(eta) xi, xi ~ N(0, 1) by 201 quantiles, and the error that it adds at the end.

    rates, x = eta: eta_stale, the score and prior of A* in the dynamics of A; eta_matched, everything of the perturbed
    A, started from its own prior: y = E |std error - that of A*|, fitted: exponent, expected 1/2; eta_matched_mean: the
    law averaged over xi instead, y = |std of the mixture - that of A*|, expected 1.
    """
    best = roots(lambda s: mean_field("duality", method, std, beta, s))[0]
    base = gaussian_process(method, std, beta, stiffness=best)
    etas, quantiles = np.geomspace(1e-5, 1e-3, 7), ndtri((np.arange(201) + 0.5) / 201)
    errors: dict[str, list[float]] = {"eta_stale": [], "eta_matched": [], "eta_matched_mean": []}
    table = make_solver("heun-sde", Score(base, Zero()), time_grid(steps, 1e-3, 2.0)).table
    reference = solver_law(make_solver("heun-sde", Score(base, Zero()), time_grid(steps, 1e-3, 2.0)), prior_law(base))
    for eta in etas:
        process = gaussian_process(method, std, beta, stiffness=best - stiffness_per_a(base) * eta**0.5 * quantiles)
        run = make_solver("heun-sde", Score(process, Zero()), time_grid(steps, 1e-3, 2.0))
        law = solver_law(run, prior_law(process))
        errors["eta_matched"].append(float(w2(law, reference).mean()))
        mixed = law[:, 0, 0].mean() ** 0.5
        errors["eta_matched_mean"].append(float(abs(mixed - reference[0, 0, 0] ** 0.5)))
        run.table = run.arrival = run.table._replace(gain=table.gain)
        stale = solver_law(run, np.broadcast_to(prior_law(base), law.shape))
        errors["eta_stale"].append(float(w2(stale, reference).mean()))
    rows: list[Row] = []
    name = f"{method}-{beta:g}, std {std:g}"
    for quantity, values in errors.items():
        rows += rates(quantity, name, etas, values, power(etas, values), 1.0 if quantity.endswith("mean") else 0.5)
    return rows
