"""Stochastic approximation of A on Gaussian data, where A* is known: Theorem 2, Lemma 2, and the limit of (13)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from repro.grid.runs import Result
from repro.studies.convergence import (
    Array,
    Row,
    exact_moments,
    fit,
    free_gradient,
    gaussian_process,
    kl,
    mean,
    power,
    rates,
    target_law,
)
from repro.studies.derivations import Zero, as_array
from repro.studies.mean_fields import (
    adaptation,
    differences,
    forward_gap,
    mean_field,
    roots,
    simulated_field,
    slope_at,
    steered,
    stiffness_per_a,
)
from vsmd.adaptation import Adaptation, least_stiffness, update
from vsmd.processes import ForwardProcess
from vsmd.scores import Score
from vsmd.training.adapting import backward_moments

SCHEDULES: dict[str, Callable[[int], float]] = {  # eta_k / eta_0
    "k^-0.6": lambda k: (1 + k / 8) ** -0.6,
    "k^-0.75": lambda k: (1 + k / 8) ** -0.75,
    "k^-1": lambda k: 1 / (1 + k / 8),
    "1/(1+k)": lambda k: 1 / (1 + k),
    "constant": lambda k: 1.0,
    "0.99^k": lambda k: 0.99**k,  # the published code's decay
}
BLOCKS = 10  # of replicas, for intervals


def stability(stds: list[float], beta: float, rounds: int, method: str = "VSCLD") -> Result:
    """Lemma 2 for each std: the mean field of each reading, its fixed points and basins; Algorithm 2's start; exact.

    rates: mean_field (x = s, y = h), fixed_point (x = std, y = s*, nan where there is none, fitted = phi, low and high:
    the basin in s, n: how many zeros), from_start (x = s_0, y = |A - A*| after 200 steps of k^-0.6, eta_0 = .2),
    sa_bias (x = nodes of the package's simulation, y = |A - A*| at that simulation's fixed point, nan without one)
    and, for the first std, terminal_growth (`growth`).
    """
    readings = ("duality", "z = s", "Algorithm 2's start")
    rows = [row for std in stds for reading in readings for row in _stability(reading, method, float(std), beta)]
    return Result({"rates": rows + growth(stds[0], beta, rounds, method)})


def _stability(reading: str, method: str, std: float, beta: float) -> list[Row]:
    grid, starts = np.geomspace(1e-2, 1e3, 41), np.geomspace(0.05, 50, 7)
    setting = f"{method}-{beta:g}, std {std:g}, {reading}"
    process, settings = gaussian_process(method, std, beta, stiffness=starts), adaptation(reading)
    field = partial(mean_field, reading, method, std, beta)
    values, zeros, unit = field(grid), roots(field), stiffness_per_a(process)
    rows = rates("mean_field", setting, grid, values)
    point = rates("fixed_point", setting, [std], zeros[:1] or [np.nan])[0] | {"n": len(zeros)}
    if zeros:
        inside = grid[values * (zeros[0] - grid) >= 0]  # h > 0 lowers A and raises s
        point |= {"fitted": slope_at(field, zeros[0], unit), "low": inside.min(), "high": inside.max()}
        for k in range(200):
            process = exact_step(process, settings, 0.2 * SCHEDULES["k^-0.6"](k), k)
        rows += rates("from_start", setting, starts, np.abs(process.stiffness[0].numpy() - zeros[0]) / unit)
    if reading == "duality":
        nodes, off = np.array([20, 40, 80]), np.full(3, np.nan)
        for i, n in enumerate(nodes):
            simulated = roots(partial(simulated_field, reading, method, std, beta, nodes=n), 0.3, 30, 1e-5)
            if simulated:
                off[i] = min(abs(s - zeros[0]) for s in simulated) / unit
        known = np.isfinite(off)
        fitted = power(nodes[known], off[known]) if known.sum() > 1 else None
        rows += rates("sa_bias", setting, nodes, off, fitted)
    return [*rows, point]


def exact_step(process: ForwardProcess, settings: Adaptation, eta: float, k: int) -> ForwardProcess:
    """The process after gradient step k of size eta, with exact moments and without averaging."""
    step = dataclasses.replace(settings, eta=eta, alpha=0.0)
    return update(process, exact_moments(process, settings), step, k, least_stiffness(process, settings))


def growth(std: float, beta: float, rounds: int, method: str = "VSCLD") -> list[Row]:
    """Algorithm 2's start: s after k exact gradient steps of each schedule, eta_0 = .2; rates: terminal_growth.

    fitted: d log s / d log k over the last decade; 0 for a schedule that has come to rest.
    """
    rows: list[Row] = []
    settings = adaptation("Algorithm 2's start")
    marks = np.unique(np.geomspace(1, rounds, 16).astype(int))
    late = marks >= rounds / 10
    for name, share in SCHEDULES.items():
        process, stiffness = gaussian_process(method, std, beta), []
        for k in range(rounds):
            process = exact_step(process, settings, 0.2 * share(k), k)
            if k + 1 in marks:
                stiffness.append(float(process.stiffness))
        growing = power(marks[late], np.array(stiffness)[late])
        rows += rates("terminal_growth", f"std {std:g}, {name}", marks, stiffness, growing)
    return rows


def limit_constant(phi: float, s2: float, schedule: str, eta: float) -> float:
    """The limit of E(A^(k) - A*)^2/eta_k for gradients of slope phi and variance s2.

    s2/(2 phi) for steps that vanish slower than 1/k; s2/(2 phi - 1/c) for eta_k = c/(b + k), nan where 2 phi c <= 1;
    s2/(2 phi - eta phi^2) for constant steps.
    """
    less = {"k^-1": 1 / (8 * eta), "1/(1+k)": 1 / eta, "constant": eta * phi**2}.get(schedule, 0.0)
    return s2 / (2 * phi - less) if 2 * phi > less else float("nan")


def stochastic(
    readings: list[str],
    schedules: list[str],
    seed: int,
    std: float = 8.0,
    beta: float = 5.0,
    eta: float = 0.2,
    paths: int = 8,
    nodes: int = 40,
    replicas: int = 200,
    rounds: int = 200,
    method: str = "VSCLD",
) -> Result:
    """Theorem 2: E(A^(k) - A*)^2 over independent replicas of the package's stochastic approximation, from A = 0.

    readings, schedules: pairs, one series each. Each replica is a direction of one process (the network of Gaussian
    data is zero, so directions are independent): one backward simulation of `paths` paths a step. A* is the zero of the
    mean field in continuous time. Slow schedules also give an average of their iterates (weights ~ k). Tables:
    convergence (mse and the bound 2 eta_k; no mse for Algorithm 2's start, which has no A*); rates: sa_slope (exponent
    of the mse in k over the last decade, interval over blocks of replicas, expected: that of eta_k itself, -1 for
    averages) and sa_constant (mse/eta_k at the end, expected from the slope and the variance of a gradient).
    """
    process = gaussian_process(method, np.full(replicas, std), beta)
    marks = np.unique(np.geomspace(1, rounds, 25).astype(int))
    shared = {"std": std, "beta": beta, "eta0": eta, "paths": paths, "nodes": nodes, "replicas": replicas, "seed": seed}
    table: list[Row] = []
    rows: list[Row] = []
    for reading, schedule in zip(readings, schedules):
        field, settings = partial(mean_field, reading, method, std, beta), adaptation(reading, nodes, paths)
        etas = np.array([eta * SCHEDULES[schedule](k) for k in range(rounds + 1)])
        zero = next(iter(roots(field)), None)
        iterates, averages = simulate(process, settings, etas[:-1].tolist(), seed)
        series = {schedule: iterates[marks - 1]}
        if zero is not None and schedule in ("k^-0.6", "k^-0.75"):
            series[f"{schedule}, averaged"] = averages[marks - 1]
        for name, values in series.items():
            mse = None if zero is None else (values - (1 - zero) / stiffness_per_a(process)) ** 2
            table += _convergence(process, {"reading": reading, "schedule": name}, marks, etas, values, mse, shared)
            if zero is None or mse is None:
                continue
            setting = f"{reading}, {name}, eta {eta:g}, {paths} paths, std {std:g}"
            rows += _slopes(setting, marks, mse, etas if name == schedule else None, seed)
            if name == schedule:
                expected = None
                if reading in ("duality", "z = s") and schedule != "0.99^k":
                    s2 = _gradient_variance(process, zero, settings, seed, rounds)
                    expected = limit_constant(slope_at(field, zero, stiffness_per_a(process)), s2, schedule, eta)
                ends = mean((_blocks(mse)[-4:] / etas[marks[-4:], None]).mean(0))
                rows += rates("sa_constant", setting, marks[-1:], mse[-1:].mean(1), ends, expected, seed)
    return Result({"convergence": table, "rates": rows})


def _convergence(
    process: ForwardProcess, names: Row, marks: Array, etas: Array, values: Array, mse: Array | None, shared: Row
) -> list[Row]:
    """Rows of `convergence` of a series: A_x `values` and their squared errors (marks, replicas) after each mark."""
    rows: list[Row] = []
    for i, k in enumerate(marks):
        row = {
            **names,
            "k": int(k),
            "eta": etas[k],
            "mse": None if mse is None else mse[i].mean(),
            "bound": 2 * etas[k],
        }
        rows.append(row | {"stiffness": 1 - stiffness_per_a(process) * values[i].mean(), **shared})
    return rows


def _blocks(mse: Array) -> Array:
    """Means (marks, `BLOCKS`) over blocks of replicas."""
    return mse.reshape(len(mse), BLOCKS, -1).mean(2)


def _slopes(setting: str, marks: Array, mse: Array, etas: Array | None, seed: int) -> list[Row]:
    """Rows sa_slope over the last decade; expected: that of the steps `etas`, -1 for averages, which have none."""
    late = marks >= marks[-1] / 10
    slope = mean([power(marks[late], block).slope for block in _blocks(mse)[late].T])
    expected = -1.0 if etas is None else power(marks[late], etas[marks[late]]).slope
    return rates("sa_slope", setting, marks[late], mse[late].mean(1), slope, expected, seed)


def _gradient_variance(process: ForwardProcess, zero: float, settings: Adaptation, seed: int, rounds: int) -> float:
    """Variance of a simulated gradient over the directions of a process whose stiffness is the fixed point."""
    at_rest = process.with_stiffness(torch.full_like(process.stiffness, zero))
    moments = backward_moments(Score(at_rest, Zero()), settings, seed, rounds)
    return float(free_gradient(at_rest, moments, settings).var())


def simulate(process: ForwardProcess, settings: Adaptation, etas: list[float], seed: int) -> tuple[Array, Array]:
    """A_x after each round (rounds, d), and its average with weights ~ k, by the package's simulation and update."""
    least, average = least_stiffness(process, settings), torch.zeros(process.shape, dtype=torch.float64)
    iterates, averages = [], []
    for k, eta in enumerate(etas):
        moments = backward_moments(Score(process, Zero()), settings, seed, k)
        process = update(process, moments, dataclasses.replace(settings, eta=eta, alpha=0.0), k, least)
        average = average + 2 / (k + 2) * (process.a_x[0] - average)
        iterates.append(process.a_x[0])
        averages.append(average)
    return torch.stack(iterates).numpy(), torch.stack(averages).numpy()


def iterate(std: float, beta: float, damping: float, pieces: list[int], rounds: int) -> Result:
    r"""The exact minimiser of (13) iterated with A untied and piecewise constant, from A = 0 and the fixed start.

    That is iterative proportional fitting, with the steered A of `vsmd.steering` as its limit. rates, x = iteration:
    ipf_error (max |A_x - steered A_x| at the pieces' middles), ipf_gap (KL of the two forward processes' paths,
    \int (beta gamma/2) E(dA a)^2 dt), ipf_end (KL(S_1 || Sigma_T); fitted: log of its factor an iteration, expected
    8 log rho, rho the canonical correlation of the steered process's two ends: Sinkhorn's rate on quadratics, squared).
    """
    return Result({"rates": [row for m in pieces for row in _iterate(std, beta, damping, m, rounds)]})


def _iterate(std: float, beta: float, damping: float, pieces: int, rounds: int) -> list[Row]:
    process = gaussian_process("VSCLD" if damping == 1 else "VSULD", std, beta, damping)
    process = process.with_stiffness(torch.ones(pieces, 1, dtype=torch.float64))
    settings = Adaptation(rule="minimiser", tied=False, pieces=pieces, eta=1.0, alpha=0.0, max_prior_kl=None, nodes=6)
    middle = (torch.arange(pieces, dtype=torch.float64) + 0.5) / pieces
    steering = steered(process)
    s, c = steering.rates(middle)
    least, setting = least_stiffness(process, settings), f"std {std:g}, beta {beta:g}, R {damping:g}, {pieces} pieces"
    values: list[tuple[float, float, float]] = []
    for k in range(rounds):
        d = differences(process, s, c)
        gap = forward_gap(process, middle, d)
        end, target = as_array(process.terminal(process.known().var)[1]), target_law(process)
        values.append((float(np.abs(d[..., 0]).max()), gap, float(kl(end - target, target)[0])))
        process = update(process, exact_moments(process, settings), settings, k, least)
    error, gaps, ends = np.array(values).T
    x = np.arange(float(rounds))
    mean_map = as_array(steering.kernel(torch.ones(1, dtype=torch.float64)).mean)[0, 0]
    rho = np.linalg.norm(mean_map * [std, 1.0], 2) / process.reference_variance() ** 0.5
    late = slice(rounds // 2, None)
    rows = rates("ipf_error", setting, x, error) + rates("ipf_gap", setting, x, gaps)
    return rows + rates("ipf_end", setting, x, ends, fit(x[late], np.log(ends[late])), 8 * float(np.log(rho)))
