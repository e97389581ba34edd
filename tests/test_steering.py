"""vsmd.steering against moment equations of our own, the end law, direct optimisation, and the gap of perturbations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import Array
from scipy.integrate import solve_ivp
from torch import Tensor

from vsmd.family import forward_process
from vsmd.processes import ForwardProcess
from vsmd.schedules import BetaSchedule

STDS = torch.logspace(-3, 3, 25, dtype=torch.float64)
MOMENTUM = [("VSCLD", None), ("VSULD", 0.7), ("VSULD", 0.3)]
CASES = [*MOMENTUM, ("VSDM", None)]


def steered(method: str, std: Tensor, beta: Any = 2.0, damping: float | None = None, **options: Any) -> ForwardProcess:
    process = forward_process(
        method, tuple(std.shape), beta=beta, damping=damping, variational_score="steered", **options
    )
    return process.with_moments(torch.zeros_like(std), std.square())


def dense(matrix: Any) -> Tensor:
    return torch.stack([torch.stack(torch.broadcast_tensors(*row), -1) for row in matrix], -2)


def law(process: ForwardProcess, t: Tensor) -> Tensor:
    """S_t (n, d, k, k) for data of the process's own variance and v_0 ~ N(0, 1)."""
    return dense(process.covariance(process.kernel(t), process.known().var))


# --- the end law ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0, 5.0, 20.0])
@pytest.mark.parametrize(("method", "damping"), CASES)
def test_end_law(method: str, damping: float | None, beta: float) -> None:
    """Issue's target: second moments at T within 1e-8 for std 1e-3 … 1e3."""
    process = steered(method, STDS, beta, damping)
    want = process.reference_variance() * torch.eye(process.k, dtype=torch.float64)
    got = law(process, torch.ones(1, dtype=torch.float64))[0]
    assert float((got / process.reference_variance() - want / process.reference_variance()).abs().max()) < 1e-8
    assert float(process.moments_kl(0.0, process.known().var).abs().max()) < 1e-12


@given(st.floats(-3, 3), st.floats(0.5, 20), st.floats(0.3, 0.999), st.booleans())
def test_end_law_anywhere(log_std: float, beta: float, damping: float, overdamped: bool) -> None:
    std = torch.tensor([10**log_std], dtype=torch.float64)
    process = steered("VSDM", std, beta) if overdamped else steered("VSULD", std, beta, damping)
    end = law(process, torch.ones(1, dtype=torch.float64))[0, 0] / process.reference_variance()
    assert float((end - torch.eye(process.k, dtype=torch.float64)).abs().max()) < 1e-8


# --- kernel and rates are one process -------------------------------------------------------------------------------


def by_ode(process: ForwardProcess, times: list[float], j: int) -> tuple[Array, Array]:
    """F and N (n, k, k) of direction j from the rates alone: dF = M F dtau, dN = (M N + N M' + Q) dtau."""
    k, g, schedule = process.k, process.gamma, process.schedule

    def rates(t: float, y: Array) -> Array:
        values = [float(r[0, j]) for r in process.rates(torch.tensor([t], dtype=torch.float64))]
        m = np.array([[-values[0]]]) if k == 1 else np.array([[0, 1], [-values[0], -g * values[1]]])
        q = np.array([[2.0]]) if k == 1 else np.diag([0, 2 * g])
        f, n = y.reshape(2, k, k)
        speed = 0.5 * float(schedule.beta(torch.tensor(t)))
        return speed * np.stack([m @ f, m @ n + n @ m.T + q]).ravel()

    start = np.stack([np.eye(k), np.zeros((k, k))]).ravel()
    found = solve_ivp(rates, (0, times[-1]), start, method="DOP853", t_eval=times, rtol=1e-11, atol=1e-13).y.T
    return found.reshape(-1, 2, k, k)[:, 0], found.reshape(-1, 2, k, k)[:, 1]


@pytest.mark.parametrize("beta", [2.0, BetaSchedule(0.1, 8.0, 1.7)])
@pytest.mark.parametrize(("method", "damping"), CASES)
def test_kernel_follows_from_the_rates(method: str, damping: float | None, beta: Any) -> None:
    """The transition kernel in closed form solves the moment equations with the closed form's A_t."""
    std = torch.tensor([0.3, 1.0, 18.7], dtype=torch.float64)
    process = steered(method, std, beta, damping)
    times = [0.05, 0.4, 0.8, 1.0]
    kernel = process.kernel(torch.tensor(times, dtype=torch.float64))
    for j in range(len(std)):
        mean, noise = by_ode(process, times, j)
        np.testing.assert_allclose(dense(kernel.mean)[:, j], mean, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(dense(kernel.noise)[:, j], noise, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("method", "damping"), CASES)
def test_kernels_compose(method: str, damping: float | None) -> None:
    """From 0 to t and from t to 1 is from 0 to 1, for every standard deviation."""
    process = steered(method, STDS, 3.0, damping)
    one, half = torch.ones(1, dtype=torch.float64), torch.full((1,), 0.6, dtype=torch.float64)
    from vsmd.kernels import compose

    whole, parts = process.kernel(one), compose(process.kernel(half), process.dynamics.kernel(one, half))  # type: ignore[call-arg]
    torch.testing.assert_close(dense(parts.mean), dense(whole.mean), rtol=1e-7, atol=1e-12)
    torch.testing.assert_close(dense(parts.noise), dense(whole.noise), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(("method", "damping"), CASES)
def test_everything_is_positive_and_finite(method: str, damping: float | None) -> None:
    t = torch.cat([torch.logspace(-6, -1e-3, 60, dtype=torch.float64), torch.ones(1, dtype=torch.float64)])
    for beta in (0.5, 2.0, 20.0):
        process = steered(method, STDS, beta, damping)
        assert bool((torch.linalg.eigvalsh(law(process, t)) > 0).all())
        table = process.coefficients(t, torch.float64)
        for value in (*table.row, *table.inp, *table.gain, table.out, table.log_snr):
            assert bool(torch.isfinite(value).all())
        assert bool((table.log_snr.diff(dim=0) < 1e-9).all())  # information about x_0 is only lost


# --- it is the optimum ----------------------------------------------------------------------------------------------


def test_no_control_where_none_is_needed() -> None:
    """Data that have the target's law already – their velocity too – are left to the reference: A = 0."""
    for method in ("VSCLD", "VSDM"):
        process = steered(method, torch.ones(1, dtype=torch.float64))
        for rate in process.rates(torch.linspace(0, 1, 5, dtype=torch.float64)):
            torch.testing.assert_close(rate, torch.ones_like(rate), rtol=1e-12, atol=1e-12)


def test_overdamped_closed_form() -> None:
    """DESIGN's k = 1: K = Q/(1/2 + sqrt(1/4 + PQ)), Pi_T = (1/K - 1)/m."""
    beta, std = 1.5, STDS
    phi, m = math.exp(-beta / 2), -math.expm1(-beta)
    p, q = phi**2 * std.square() / m, 1 / m
    gain = ((0.5 + (0.25 + p * q).sqrt()) / q - 1) / m
    process = steered("VSDM", std, beta)
    torch.testing.assert_close(
        process.rates(torch.ones(1, dtype=torch.float64))[0][0], 1 + 2 * gain, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(("method", "damping"), [("VSCLD", None), ("VSULD", 0.5), ("VSDM", None)])
def test_cheaper_than_feasible_perturbations(method: str, damping: float | None) -> None:
    """1,000 random linear controls that end in the same law cost more.

    Feedbacks on 400 steps of the clock: the steered one plus random bumps, plus three smooth ones whose sizes Newton's
    method finds such that the end law is met.
    """
    std, k = torch.tensor([6.0], dtype=torch.float64), 1 if method == "VSDM" else 2
    process = steered(method, std, 2.0, damping)
    g2, n, paths = 2.0 * (process.gamma if k == 2 else 1.0), 400, 1_000
    rng = np.random.default_rng(0)
    reference = np.array([[-1.0]]) if k == 1 else np.array([[0, 1.0], [-1, -process.gamma * math.sqrt(damping or 1.0)]])
    noise = np.zeros((k, k))
    noise[-1, -1] = g2
    times = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    best = np.zeros((n, k, k))
    for i, rate in enumerate(process.rates(times)):
        best[:, -1, i] = -rate[:, 0].numpy() * (process.gamma if i == 1 else 1.0)
    best[:, -1] -= reference[-1]  # the control's share of the drift
    bumps = rng.normal(size=(paths, 40, k)).repeat(n // 40, 1) * rng.uniform(0.02, 1.0, size=(paths, 1, 1))
    window = np.sin(np.pi * (np.arange(n) + 0.5) / n)[None, :, None]
    h = 1.0 / n  # of the clock, whose length is beta/2 = 1

    def run(extra: Array) -> tuple[Array, Array]:
        cov = np.broadcast_to(np.diag([36.0, 1.0][:k]), (len(extra), k, k)).copy()
        cost = np.zeros(len(extra))
        for i in range(n):
            control = np.broadcast_to(best[i], cov.shape).copy()
            control[:, -1] += extra[:, i]
            u = control[:, -1:]
            cost += h * (u @ cov @ u.swapaxes(1, 2))[:, 0, 0] / (2 * g2)
            step = np.eye(k) + h * (reference + control)
            cov = step @ cov @ step.swapaxes(1, 2) + h * noise
        return cost, cov

    base, end = run(np.zeros((1, n, k)))
    u = (np.arange(n) + 0.5) / n
    shapes = [(np.sin(np.pi * u), 0)] if k == 1 else [(u, 0), (u, 1), (u**3, 1)]
    modes = np.zeros((len(shapes), n, k))
    for mode, (shape, component) in zip(modes, shapes):
        mode[:, component] = shape
    rows = [(i, j) for i in range(k) for j in range(i + 1)]
    size, extra = np.zeros((paths, len(modes))), 0.2 * bumps * window
    for _ in range(8):
        _, reached = run(extra + np.einsum("pm,mnk->pnk", size, modes))
        miss = np.stack([(reached - end)[:, i, j] for i, j in rows], 1)
        slopes = []
        for m in range(len(modes)):
            moved = size.copy()
            moved[:, m] += 1e-5
            _, other = run(extra + np.einsum("pm,mnk->pnk", moved, modes))
            slopes.append(np.stack([(other - reached)[:, i, j] for i, j in rows], 1) / 1e-5)
        size -= np.linalg.solve(np.stack(slopes, 2), miss[..., None])[..., 0]
    costs, reached = run(extra + np.einsum("pm,mnk->pnk", size, modes))
    feasible = np.abs(reached - end).max((1, 2)) < 1e-8
    assert feasible.mean() > 0.95
    gap = costs[feasible] / base[0] - 1
    assert gap.min() > -1e-4  # the steps' own error
    assert np.median(gap) > 1e-4


# --- what users see -------------------------------------------------------------------------------------------------


def test_zero_variance_is_left_alone() -> None:
    std = torch.tensor([0.0, 3.0], dtype=torch.float64)
    for method in ("VSCLD", "VSDM"):
        process = steered(method, std)
        reference = forward_process(method, (2,), beta=2.0, variational_score="zero")
        t = torch.tensor([0.3, 1.0], dtype=torch.float64)
        torch.testing.assert_close(dense(process.kernel(t).noise)[:, 0], dense(reference.kernel(t).noise)[:, 0])
        assert float((dense(process.kernel(t).noise) - dense(reference.kernel(t).noise))[:, 1].abs().max()) > 1e-3


def test_a_steered_process_needs_moments() -> None:
    process = forward_process("VSCLD", (2,), variational_score="steered")
    with pytest.raises(ValueError, match=r"^moments=None: .*call with_moments\(mean, var\)$"):
        process.transition(0.5)
    with pytest.raises(ValueError, match=r"^stiffness: of a steered process varies with time; rates\(t\) gives it$"):
        _ = process.stiffness
    assert float(process.moments_kl(0.0, 350.0).max()) < 1e-12  # steered for these data


def test_beta_too_small_for_the_tables() -> None:
    """The smallest safe beta is said, and it is safe."""
    std = torch.tensor([1e-3, 1e3], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"^beta=1e-05: too small to steer .* must be >= ([-+.e\d]+)$") as caught:
        steered("VSCLD", std, 1e-5).kernel(torch.ones(1, dtype=torch.float64))
    safe = float(str(caught.value).rsplit(" ", 1)[1])
    assert 1e-5 < safe < 0.1
    for above in (1.0, 1.01, 1.05, 1.3):  # and so is what is larger
        end = law(steered("VSCLD", std, safe * above), torch.ones(1, dtype=torch.float64))[0]
        torch.testing.assert_close(end, torch.eye(2, dtype=torch.float64).expand(2, 2, 2), rtol=0, atol=1e-8)


def test_pictures_and_principal_axes() -> None:
    """Directions of any shape, and a full matrix in the data's axes: the end law is that of each direction alone."""
    std = STDS[:12].view(3, 2, 2)
    got = steered("VSULD", std, 2.0, 0.7).kernel(torch.ones(1, dtype=torch.float64))
    flat = steered("VSULD", std.flatten(), 2.0, 0.7).kernel(torch.ones(1, dtype=torch.float64))
    torch.testing.assert_close(dense(got.noise).flatten(1, 3), dense(flat.noise))
