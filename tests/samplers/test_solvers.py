"""vsmd.samplers on Gaussian data, where the exact score is linear: laws are pushed exactly and orders measured."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from oracles import Array, kernel_np
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from vsmd.family import forward_process
from vsmd.processes import ForwardProcess
from vsmd.random import BatchNoise
from vsmd.samplers import SOLVERS, Solver, as_solver, integrate, make_solver, time_grid
from vsmd.samplers.rk45 import RK45
from vsmd.schedules import BetaSchedule
from vsmd.scores import Score

T_MIN, VAR = 1e-2, 4.0
METHODS = ("CLD", "VSULD", "SGM")
ASSUMED = 1.5  # variance that a process is told where a network of ours has to make up for it
FLOW_ORDERS = {"euler": 1, "heun": 2, "exponential": 2, "exponential-1": 1}
WEAK_ORDERS = {"euler-maruyama": 1, "aboba": 1, "baoab": 1, "aboba-midpoint": 2, "baoab-midpoint": 2, "heun-sde": 2}
SPLITTINGS = [name for name in WEAK_ORDERS if name.startswith(("aboba", "baoab"))]


class Counting(nn.Module):
    """A zero network, hence the exact score of Gaussian data, that counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        self.calls += 1
        return torch.zeros_like(z)


class Known(nn.Module):
    """E[target | z] for Gaussian data of variance VAR under a process that takes it for ASSUMED: the exact score again.

    With q = VAR/ASSUMED it is snr (q - 1)/(1 + q snr^2) z.
    """

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        snr, q = log_snr.double().exp(), VAR / ASSUMED
        return snr * (q - 1) / (1 + q * snr.square()) * z


def gaussian(method: str, beta: Any = 5.0, var: float = VAR) -> ForwardProcess:
    process = forward_process(method, (1,), beta=beta)
    if method == "VSULD":
        process = process.with_stiffness(torch.tensor([[2.5]]))
    return process.with_moments(torch.zeros(1), torch.tensor([var]))


def solver_for(name: str, process: ForwardProcess, steps: int, **options: Any) -> Solver:
    return make_solver(name, Score(process, Counting()), time_grid(steps, T_MIN), **options)


class Exact:
    """Laws and flow of a Gaussian process of one direction, from matrix exponentials and an ODE of our own."""

    def __init__(self, process: ForwardProcess) -> None:
        self.schedule, self.gamma, self.k = process.schedule, process.gamma, process.k
        s = float(process.stiffness)
        self.c = float(process.friction) if self.k == 2 else math.nan
        self.s = s
        self.m = np.array([[-s]]) if self.k == 1 else np.array([[0, 1], [-s, -self.gamma * self.c]])
        self.q = np.diag([0, 2 * self.gamma]) if self.k == 2 else np.array([[2.0]])

    def beta(self, t: float) -> float:
        return self.schedule.b_min + (self.schedule.b_max - self.schedule.b_min) * t**self.schedule.power

    def tau(self, t: float) -> float:
        p = self.schedule.power + 1
        return 0.5 * (self.schedule.b_min * t + (self.schedule.b_max - self.schedule.b_min) * t**p / p)

    def law(self, t: float) -> Array:
        """S_t for data of variance VAR and v_0 ~ N(0, 1)."""
        f, n = kernel_np(self.m, self.q, self.tau(t))
        return np.asarray(f @ np.diag([VAR, 1.0][: self.k]) @ f.T + n)

    def gain(self, t: float) -> Array:
        return np.asarray(-np.linalg.inv(self.law(t))[-1])

    def flow(self, low: float = T_MIN) -> Array:
        """The probability flow's map from t = 1 to `low`."""

        def rates(t: float, y: Array) -> Array:
            g = 0.5 * self.beta(t) * self.m
            g[-1] -= 0.25 * self.beta(t) * self.q[-1, -1] * self.gain(t)
            return (g @ y.reshape(self.k, self.k)).ravel()

        start = np.eye(self.k).ravel()
        y = solve_ivp(rates, (1.0, low), start, method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
        return np.asarray(y.reshape(self.k, self.k))


def batch_noise(seed: int) -> BatchNoise:
    return BatchNoise(torch.Generator().manual_seed(seed))


def pushed(solver: Solver) -> Array:
    """The linear map of a deterministic solver over its whole grid, from basis states."""
    k = solver.process.k
    return integrate(solver, torch.eye(k, dtype=torch.float64)[..., None])[..., 0].numpy().T


class BasisDraws:
    """Noise whose j-th draw is the j-th unit vector, from row `first` on."""

    def __init__(self, first: int) -> None:
        self.first, self.calls = first, 0

    def __call__(self, like: Tensor) -> Tensor:
        draw = torch.zeros_like(like)
        draw[self.first + self.calls] = 1
        self.calls += 1
        return draw


def probed(solver: Solver, i: int) -> tuple[Array, Array]:
    """Step i of a stochastic solver is a -> K a + sum_j B_j xi_j: K and sum_j B_j B_j', from basis states and draws."""
    k, most = solver.process.k, 4
    noise = BasisDraws(k)
    start = torch.zeros(k + most, k, 1, dtype=torch.float64)
    start[:k, :, 0] = torch.eye(k)
    out = solver.step(start, i, noise)[..., 0].numpy()
    assert noise.calls >= 1
    return out[:k].T, out[k:].T @ out[k:]


def propagated(solver: Solver, start: Array) -> Array:
    """The covariance at the grid's end, exactly."""
    cov = start
    for i in range(len(solver.times) - 1):
        k, noise = probed(solver, i)
        cov = k @ cov @ k.T + noise
    return cov


def order(errors: list[float]) -> float:
    """Slope of log error against log step over doublings of the number of steps."""
    return math.log2(errors[0] / errors[-1]) / (len(errors) - 1)


# --- convergence ------------------------------------------------------------------------------------------------------


def test_every_solver_is_measured() -> None:
    assert {*FLOW_ORDERS, *WEAK_ORDERS, "rk45"} == set(SOLVERS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FLOW_ORDERS)
def test_order_of_flow_solvers(name: str, method: str) -> None:
    """The exact score is in part a network's: only that part do the exponential solvers take approximately."""
    process = gaussian(method, BetaSchedule(1.0, 9.0), ASSUMED)
    flow, score = Exact(process).flow(), Score(process, Known())
    solvers = [make_solver(name, score, time_grid(n, T_MIN, 2.0)) for n in (40, 80, 160)]
    errors = [float(np.abs(pushed(solver) - flow).max()) for solver in solvers]
    assert errors[-1] > 1e-5  # float32 tables: rounding must not be what is measured
    assert order(errors) == pytest.approx(FLOW_ORDERS[name], abs=0.15)


def test_order_with_a_piecewise_constant_score() -> None:
    """Steps that end where A_t jumps lose nothing: each sees the piece that it crosses."""
    process = forward_process("VSCLD", (1,)).with_moments(torch.zeros(1), torch.tensor([VAR]))
    process = process.with_stiffness(torch.tensor([[1.0], [4.0], [9.0], [2.0]]))
    knots = [1.0, 0.75, 0.5, 0.25, T_MIN]

    def grid(n: int) -> Tensor:
        parts = [torch.linspace(a, b, n // 4 + 1, dtype=torch.float64)[:-1] for a, b in itertools.pairwise(knots)]
        return torch.cat([*parts, torch.tensor(knots[-1:], dtype=torch.float64)])

    score = Score(process, Counting())
    flow = pushed(make_solver("rk45", score, grid(4), rtol=1e-8, atol=1e-8))
    errors = [float(np.abs(pushed(make_solver("heun", score, grid(n))) - flow).max()) for n in (40, 80, 160)]
    assert order(errors) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize(
    ("name", "method"), [(n, m) for n in WEAK_ORDERS for m in METHODS if m != "SGM" or n not in SPLITTINGS]
)
def test_weak_order_of_stochastic_solvers(name: str, method: str) -> None:
    """The covariance started from the exact S_1; extrapolated to no step at all it is the data's.

    ABOBA and BAOAB are of order 1 in reverse time as printed, with the score frozen in O, of order 2 with a midpoint.
    """
    process = gaussian(method)
    exact, want = Exact(process), WEAK_ORDERS[name]
    laws = [propagated(solver_for(name, process, n), exact.law(1.0)) for n in (40, 80, 160)]
    end = exact.law(T_MIN)
    errors = [float(np.abs(law - end).max()) for law in laws]
    assert errors[-1] > 1e-4
    assert order(errors) == pytest.approx(want, abs=0.2)
    limit = (2**want * laws[2] - laws[1]) / (2**want - 1)
    assert np.abs(limit - end).max() < 0.2 * errors[-1]


@pytest.mark.parametrize("name", WEAK_ORDERS)
def test_weak_order_where_beta_and_the_score_vary(name: str) -> None:
    """A steered process: s(t), c(t) and beta(t) are smooth, and its own kernels give the laws."""
    process = forward_process("VSCLD", (1,), beta=BetaSchedule(1.0, 5.0), variational_score="steered")
    process = process.with_moments(torch.zeros(1), torch.tensor([VAR]))

    def law(t: float) -> Array:
        cov = process.covariance(process.kernel(torch.tensor([t])), torch.tensor(VAR))
        return np.array([[float(e) for e in row] for row in cov])

    laws = [propagated(solver_for(name, process, n), law(1.0)) for n in (40, 80, 160)]
    errors = [float(np.abs(got - law(T_MIN)).max()) for got in laws]
    assert errors[-1] > 2e-5
    assert order(errors) == pytest.approx(WEAK_ORDERS[name], abs=0.2)


@pytest.mark.parametrize("method", METHODS)
def test_generated_moments_in_the_limit(method: str) -> None:
    """Heun with many steps from S_1 ends in the data's law, t_min aside."""
    process = gaussian(method)
    exact = Exact(process)
    k = pushed(solver_for("heun", process, 400))
    law = k @ exact.law(1.0) @ k.T
    np.testing.assert_allclose(law, exact.law(T_MIN), atol=2e-3)
    assert math.sqrt(law[0, 0]) == pytest.approx(math.sqrt(VAR), rel=0.02)


@pytest.mark.parametrize("beta", [6.0, BetaSchedule(0.1, 20.0)])
@pytest.mark.parametrize("method", METHODS)
def test_rk45_is_the_flow(method: str, beta: Any) -> None:
    process = gaussian(method, beta)
    got = pushed(solver_for("rk45", process, 3, rtol=1e-8, atol=1e-8))
    np.testing.assert_allclose(got, Exact(process).flow(), atol=2e-6)


def test_overdamped_flow_in_closed_form() -> None:
    """k = 1: the flow stretches by sqrt(S_t/S_1)."""
    process = gaussian("SGM")
    want = math.sqrt(float(Exact(process).law(T_MIN)[0, 0] / Exact(process).law(1.0)[0, 0]))
    got = pushed(solver_for("rk45", process, 1, rtol=1e-8, atol=1e-8))
    assert float(got[0, 0]) == pytest.approx(want, rel=1e-6)


# --- single steps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_euler_maruyama_step(method: str) -> None:
    """(16) with the factor x it drops: noise beta gamma h in v alone (beta h if overdamped)."""
    process = gaussian(method, BetaSchedule(1.0, 9.0))
    exact, solver = Exact(process), solver_for("euler-maruyama", process, 10)
    t, h = float(solver.times[3]), float(solver.times[3] - solver.times[4])
    beta, g2 = exact.beta(t), exact.q[-1, -1] / 2
    drift = -0.5 * beta * exact.m
    drift[-1] += beta * g2 * exact.gain(t)
    k, noise = probed(solver, 3)
    np.testing.assert_allclose(k, np.eye(exact.k) + h * drift, atol=1e-6)
    want = np.zeros_like(k)
    want[-1, -1] = beta * g2 * h
    np.testing.assert_allclose(noise, want, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("name", "plan"), [("aboba", "ABOBA"), ("baoab", "BAOAB")])
def test_splitting_steps(name: str, plan: str) -> None:
    """The letters of (17), outer ones by halves, O exact with the score frozen at its entry."""
    process = gaussian("VSULD", BetaSchedule(1.0, 9.0))
    exact, solver = Exact(process), solver_for(name, process, 10)
    t, low = (float(v) for v in solver.times[2:4])
    h, gc = exact.tau(t) - exact.tau(low), exact.gamma * exact.c
    grow = math.exp(gc * h)
    pull = 2 * exact.gamma * (grow - 1) / gc * exact.gain(t)
    part = {
        "A": np.array([[1, -h / 2], [0, 1]]),
        "B": np.array([[1, 0], [exact.s * h / 2, 1]]),
        "O": np.array([[1, 0], [pull[0], grow + pull[1]]]),
    }
    want, spread = np.eye(2), np.zeros((2, 2))
    for letter in plan:
        want, spread = part[letter] @ want, part[letter] @ spread @ part[letter].T
        if letter == "O":
            spread[1, 1] += exact.gamma / gc * (grow**2 - 1)
    k, noise = probed(solver, 2)
    np.testing.assert_allclose(k, want, atol=2e-6)
    np.testing.assert_allclose(noise, spread, atol=2e-6)


# --- the common face --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPLITTINGS)
@pytest.mark.parametrize("method", ["SGM", "VSDM"])
def test_splittings_need_a_velocity(name: str, method: str) -> None:
    with pytest.raises(ValueError, match=rf"^solver='{name}': {method} has no velocity to split$"):
        solver_for(name, gaussian(method), 5)


def test_unknown_solver() -> None:
    with pytest.raises(ValueError, match=r"^solver='huen': must be one of .*\(did you mean 'heun'\?\)$"):
        solver_for("huen", gaussian("CLD"), 5)
    for other in (None, 1, int, ["heun"]):
        with pytest.raises(ValueError, match=r"^solver=.*: must be one of 'euler-maruyama', "):
            as_solver(other)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SOLVERS)
def test_evaluations_are_counted(name: str) -> None:
    process, network = gaussian("CLD"), Counting()
    solver = make_solver(name, Score(process, network), time_grid(7, T_MIN))
    integrate(solver, torch.zeros(3, 2, 1), batch_noise(0))
    assert network.calls == (solver.calls if name == "rk45" else 7 * solver.evaluations)  # type: ignore[attr-defined]
    assert network.calls >= 7


@pytest.mark.parametrize("name", SOLVERS)
def test_noise_is_a_function_of_the_generator(name: str) -> None:
    process = gaussian("ULD")
    solver = solver_for(name, process, 4)
    start = process.prior_law().sample(6, torch.Generator().manual_seed(5))
    one, two, other = (integrate(solver, start.clone(), batch_noise(s)) for s in (0, 0, 1))
    assert one.shape == start.shape
    assert one.dtype == torch.float32
    assert torch.equal(one, two)
    assert solver.stochastic == (name in WEAK_ORDERS) == (not torch.equal(one, other))


@pytest.mark.parametrize("name", SOLVERS)
def test_watch_sees_every_node(name: str) -> None:
    """The start included; the start itself is left alone."""
    solver = solver_for(name, gaussian("CLD"), 5)
    start = torch.randn(4, 2, 1, generator=torch.Generator().manual_seed(0))
    kept = start.clone()
    seen: list[tuple[int, Tensor]] = []
    end = integrate(solver, start, batch_noise(0), lambda i, a: seen.append((i, a.clone())))
    assert [i for i, _ in seen] == list(range(6))
    assert torch.equal(start, kept)
    assert torch.equal(seen[0][1], kept)
    assert torch.equal(seen[-1][1], end)


@pytest.mark.parametrize("name", sorted(WEAK_ORDERS))
def test_a_stochastic_solver_asks_for_its_noise(name: str) -> None:
    solver = solver_for(name, gaussian("CLD"), 3)
    with pytest.raises(ValueError, match=r"^noise=None: a stochastic solver takes its noise from an object"):
        integrate(solver, torch.zeros(3, 2, 1))


def test_class_and_instance_serve_as_well_as_a_name() -> None:
    process, start = gaussian("CLD"), torch.randn(4, 2, 1, generator=torch.Generator().manual_seed(0))
    score, times = Score(process, Counting()), time_grid(4, T_MIN)
    by_name = integrate(make_solver("rk45", score, times, rtol=1e-8), start)
    for solver in (RK45(rtol=1e-8), as_solver(RK45, rtol=1e-8)):
        assert torch.equal(integrate(make_solver(solver, score, times), start), by_name)
    with pytest.raises(ValueError, match=r"^rtol: rk45 is made already; give it its options there$"):
        make_solver(RK45(), score, times, rtol=1e-3)
