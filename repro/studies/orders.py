"""Orders of the solvers and the steps that they need as the dimension grows, from exact laws on Gaussian data."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from repro.grid.runs import Result
from repro.studies.convergence import Array, Row, between, fit, gaussian_process, kl, power, rates, solver_law, w2
from repro.studies.derivations import Zero, as_array, forward_covariance, scaled_error
from vsmd.processes import ForwardProcess
from vsmd.samplers import as_solver, make_solver, time_grid
from vsmd.samplers.base import Solver
from vsmd.scores import Score

T_MIN = 1e-2  # grids are uniform from 1 to here, and laws compared here
ROUNDING = 3e-6  # of the solvers' float32 tables: errors below are not fitted


class Rescaled(nn.Module):
    """The exact network of Gaussian data whose variance is `ratio` times the one that the process assumes.

    z then has variance (1 + ratio snr^2)/(1 + snr^2), and E[target | z] = snr (ratio - 1)/(1 + ratio snr^2) z.
    """

    def __init__(self, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        """E[target | z]."""
        snr = log_snr.exp()
        return snr * (self.ratio - 1) / (1 + self.ratio * snr.square()) * z


def order(
    solvers: list[str], methods: list[str], std: float, beta: float, steps: list[int], ratio: float = 4.0
) -> Result:
    """Error of each solver's end law from the exact S_1, against its step; table orders.

    The process assumes the data's variance divided by `ratio` and the network makes up for it: the score is exact, and
    the exponential solvers, for which a zero network would be no test, have something to integrate. error: largest
    entry of the covariance's error at t = .01, over standard deviations. fitted_order: over the finest half.
    """
    cases = [(s, m) for m in methods for s in solvers if m in ("CLD", "ULD") or not as_solver(s).needs_velocity]
    return Result({"orders": [row for s, m in cases for row in _order(s, m, std, beta, steps, ratio)]})


def _order(solver: str, method: str, std: float, beta: float, steps: list[int], ratio: float) -> list[Row]:
    assumed, data = gaussian_process(method, std / ratio**0.5, beta), gaussian_process(method, std, beta)
    start, end = forward_covariance(data, np.array([1.0, T_MIN]))
    errors, h, evaluations = [], [], 1
    for n in steps:
        run = make_solver(solver, Score(assumed, Rescaled(ratio)), time_grid(n, T_MIN))
        errors.append(scaled_error(solver_law(run, start), end))
        h.append((1 - T_MIN) / n)
        evaluations = run.evaluations
    usable = np.flatnonzero(np.array(errors) > ROUNDING)[-max(3, len(steps) // 2) :]
    order_fit = power(np.array(h)[usable], np.array(errors)[usable])
    shared = {"fitted_order": order_fit.slope, "low": order_fit.low, "high": order_fit.high}
    base = {"solver": solver, "method": method, "beta": beta, "std": std}
    return [{**base, "h": a, "nfe": n * evaluations, "error": e, **shared} for a, n, e in zip(h, steps, errors)]


def path_kl(process: ForwardProcess, steps: int) -> float:
    r"""KL in nats, one direction, between the paths of the reverse SDE and of it with the score held over each step.

    Girsanov: \int (g^2/2) E|s(a_t, t) - s(a_k, t_k)|^2 dt under the exact law, the linear part integrated exactly: the
    scheme that the proofs analyse. Four Gauss nodes a step.
    """
    x, w = np.polynomial.legendre.leggauss(4)
    grid = time_grid(steps, T_MIN).numpy()
    late, width = np.repeat(grid[:-1], len(x)), np.repeat(-np.diff(grid), len(x))
    early = late - width * np.tile((1 + x) / 2, steps)
    s_late, s_early = (forward_covariance(process, t)[:, 0] for t in (late, early))
    g_late, g_early = (-np.linalg.inv(s)[:, -1:] for s in (s_late, s_early))
    forward = as_array(between(process, torch.from_numpy(early), torch.from_numpy(late)).mean)[:, 0]
    cross = g_late @ forward @ s_early @ g_early.swapaxes(1, 2)
    square = g_late @ s_late @ g_late.swapaxes(1, 2) + g_early @ s_early @ g_early.swapaxes(1, 2) - 2 * cross
    noise = process.schedule.beta(torch.from_numpy(early)).numpy() * (process.gamma if process.k == 2 else 1.0)
    return float((0.5 * noise * square[:, 0, 0] * np.tile(w / 2, steps) * width).sum())


def distances(process: ForwardProcess, solver: str, steps: int) -> tuple[float, float]:
    """W2^2 and KL of the generated x against the data's at t = .01, one direction, from the exact S_1."""
    start, end = forward_covariance(process, np.array([1.0, T_MIN]))
    run: Solver = make_solver(solver, Score(process, Zero()), time_grid(steps, T_MIN))
    law = solver_law(run, start)
    marginal, true = law[:, :1, :1], end[:, :1, :1]
    return float(w2(law, end)[0] ** 2), float(kl(marginal - true, true)[0])


def dimension(
    methods: list[str],
    solvers: list[str],
    most: list[int],
    std: float,
    beta: float,
    dims: list[int],
    accuracies: list[float],
) -> Result:
    """Section A.1: steps to reach an accuracy eps in dimension d, on N(0, std^2 I_d) from the exact S_1.

    methods, solvers, most: triples. Directions are independent, so that W2^2 and KL are d times one direction's, and
    steps(d, eps) follows from one direction's error over up to `most` steps (interpolated in logarithms, not rounded;
    pairs beyond are left out). solver "held score" is the path KL of `path_kl`. rates: setting "… W2 <= eps", x = d or
    1/eps, y = steps, fitted: the exponent, of d and of 1/eps, from one regression over all pairs; for KL, eps is
    sqrt(KL/2): the bound on TV.
    """
    rows: list[Row] = []
    for method, solver, largest in zip(methods, solvers, most):
        steps = [int(2 ** (i / 2)) for i in range(6, 1 + int(2 * np.log2(largest)))]
        rows += _dimension(method, solver, std, beta, steps, dims, accuracies)
    return Result({"rates": rows})


def _dimension(
    method: str, solver: str, std: float, beta: float, steps: list[int], dims: list[int], accuracies: list[float]
) -> list[Row]:
    process = gaussian_process(method, std, beta)
    if solver == "held score":
        measured = {"path TV": np.array([path_kl(process, n) / 2 for n in steps])}
    else:
        both = np.array([distances(process, solver, n) for n in steps])
        measured = {"W2": both[:, 0], "TV": both[:, 1] / 2}
    rows: list[Row] = []
    for name, one in measured.items():
        pairs = [(d, e, needed(steps, one, e**2 / d)) for d in dims for e in accuracies]
        pairs = [(d, e, n) for d, e, n in pairs if np.isfinite(n)]
        if len(pairs) < 4:
            continue
        d, e, n = np.array(pairs).T
        by_d, by_e = fit(np.log(d), np.log(n), np.log(e)), fit(-np.log(e), np.log(n), np.log(d))
        setting = f"{method}-{beta:g} {solver}, std {std:g}, {name}"
        for eps in accuracies:
            of_eps = e == eps
            rows += rates("steps_by_dimension", f"{setting} <= {eps:g}", d[of_eps], n[of_eps], by_d)
        for dim in dims:
            of_dim = d == dim
            rows += rates("steps_by_accuracy", f"{setting}, d = {dim}", 1 / e[of_dim], n[of_dim], by_e)
    return rows


def needed(steps: list[int], values: Array, level: float) -> float:
    """Steps at which a falling error reaches `level`, between the last coarser grid that misses it and the next."""
    above = np.flatnonzero(values > level)
    if len(above) == 0 or above[-1] == len(steps) - 1:
        return float("nan")
    i = above[-1]
    n, v = np.log(steps[i : i + 2]), np.log(values[i : i + 2])
    return float(np.exp(n[0] + (np.log(level) - v[0]) / (v[1] - v[0]) * (n[1] - n[0])))
