"""repro.studies.convergence: exact laws against ODEs and other solvers, fits against SciPy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracles import Array, kernel_np
from scipy import stats
from scipy.integrate import solve_ivp

from repro.studies import convergence as cv
from repro.studies import derivations as dv
from vsmd.adaptation import Adaptation
from vsmd.processes import ForwardProcess
from vsmd.samplers import make_solver, time_grid
from vsmd.scores import Score

STD = 3.0


def made(method: str) -> ForwardProcess:
    return cv.gaussian_process(method, STD, 5.0, 0.7 if method == "VSULD" else None, 1.0 if method == "SGM" else 2.5)


def drift_of(process: ForwardProcess, t: float) -> tuple[Array, Array, Array]:
    """Drift per unit of the clock, noise, and S_t of the data, from matrix exponentials."""
    s, k = float(process.stiffness[0]), process.k
    m = np.array([[-s]]) if k == 1 else np.array([[0, 1], [-s, -2 * float(process.friction[0])]])
    q = np.diag([0.0, 4.0]) if k == 2 else np.array([[2.0]])
    f, n = kernel_np(m, q, 2.5 * t)
    return m, q, np.asarray(f @ np.diag([STD**2, 1.0][:k]) @ f.T + n)


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("method", ["CLD", "VSULD", "SGM"])
def test_laws_against_an_ode(method: str, share: float) -> None:
    """The reverse SDE (share 1) and the flow (1/2) from N(0, Sigma_T): dP/dr = G P + P G' + noise."""
    process = made(method)
    start, k = cv.target_law(process), process.k

    def rates(r: float, y: Array) -> Array:
        m, q, s = drift_of(process, 1 - r)
        g = -2.5 * (m + share * q @ np.linalg.inv(s))
        g = -2.5 * m - 2.5 * share * q @ np.linalg.inv(s)
        p = y.reshape(k, k)
        return np.asarray(g @ p + p @ g.T + 2.5 * q * (share == 1)).ravel()

    want = solve_ivp(rates, (0, 1), start[0].ravel(), "DOP853", rtol=1e-11, atol=1e-12).y[:, -1].reshape(k, k)
    if share == 1:
        s, got = cv.backward_laws(process, np.linspace(1, 0, 4), start)
        np.testing.assert_allclose(s[-1][0], np.diag([STD**2, 1.0][:k]), atol=1e-12)
        np.testing.assert_allclose(got[-1][0], want, rtol=1e-8, atol=1e-9)
    else:
        np.testing.assert_allclose(cv.flow_end(process, start)[0], want, rtol=1e-8, atol=1e-9)


def test_backward_laws_through_pieces() -> None:
    """Knots of A on the grid: the same law as with the pieces merged by a single long step is not possible, so as
    many small ones; and the data's own law is kept."""
    process = cv.gaussian_process("VSCLD", STD, 5.0)
    process = process.with_stiffness(torch.tensor([[1.0], [4.0], [2.0], [6.0]], dtype=torch.float64))
    coarse = cv.backward_laws(process, np.linspace(1, 0, 5), cv.target_law(process))[1][-1]
    fine = cv.backward_laws(process, np.linspace(1, 0, 33), cv.target_law(process))[1][-1]
    np.testing.assert_allclose(coarse, fine, rtol=1e-9)
    s, p = cv.backward_laws(process, np.linspace(1, 0, 9), dv.forward_covariance(process, np.ones(1))[0])
    np.testing.assert_allclose(p, s, rtol=1e-9, atol=1e-12)


def test_solver_law_is_euler_maruyama_s_recursion() -> None:
    process = cv.gaussian_process("ULD", STD, 5.0, 0.7)
    solver = make_solver("euler-maruyama", Score(process, dv.Zero()), time_grid(60))
    law = cv.solver_law(solver, dv.forward_covariance(process, np.ones(1))[0])
    assert math.sqrt(law[0, 0, 0]) == pytest.approx(dv.euler_moments(process, 60, False)[1], rel=1e-6)


@pytest.mark.parametrize("name", ["heun-sde", "aboba-midpoint", "heun"])
def test_solver_law_is_what_sampling_gives(name: str) -> None:
    from vsmd.random import BatchNoise, generator
    from vsmd.samplers import integrate

    process = cv.gaussian_process("CLD", [STD, 1.0], 5.0)
    run = make_solver(name, Score(process, dv.Zero()), time_grid(8))
    n, start = 200_000, cv.target_law(process)
    a = integrate(run, torch.randn(n, 2, 2, generator=generator(0, "a")), BatchNoise(generator(0, "b"))).double()
    got = torch.einsum("nid,njd->dij", a, a).numpy() / n
    assert dv.scaled_error(got, cv.solver_law(run, start)) < 4 * math.sqrt(2 / n)


def test_each_component_of_basis_noise_is_one_rows_alone() -> None:
    noise = cv.BasisNoise(used=1, scale=2.0)
    a, b = noise(torch.empty(4, 2)), noise(torch.empty(4, 2, 3, dtype=torch.float64))
    assert noise.used == 4
    assert a.tolist() == [[0, 0], [2, 2], [0, 0], [0, 0]]
    assert torch.equal((b / 2).sum(2) / 3, torch.tensor([[0.0, 0], [0, 0], [1, 0], [0, 1]], dtype=torch.float64))


@pytest.mark.parametrize("size", [1.0, 1e-2, 1e-5, 1e-9])
def test_kl_keeps_its_digits(size: float) -> None:
    import mpmath as mp

    other, delta = np.array([[2.0, 0.3], [0.3, 1.0]]), size * np.array([[1.0, 0.2], [0.2, -0.4]])
    with mp.workdps(50):
        ratio = mp.inverse(mp.matrix(other.tolist())) * mp.matrix((delta).tolist())
        want = (ratio[0, 0] + ratio[1, 1] - mp.log(mp.det(mp.eye(2) + ratio))) / 2
    assert float(cv.kl(delta, other)) == pytest.approx(float(want), rel=1e-6)


def test_w2_of_gaussians() -> None:
    law, other = np.array([[[4.0, 0], [0, 1]]]), np.array([[[9.0, 0], [0, 5]]])
    assert cv.w2(law, other) == pytest.approx([1.0])


@pytest.mark.parametrize("method", ["VSCLD", "VSDM"])
@pytest.mark.parametrize("start", ["target", "terminal"])
def test_exact_moments_against_the_moment_odes(method: str, start: str) -> None:
    """Against Heun's 4,000 steps to t = 1e-3 (that end is what is left)."""
    process = cv.gaussian_process(method, 2.0, 5.0, stiffness=1.7)
    exact = cv.exact_moments(process, Adaptation(nodes=20, start=start))
    other = dv.gaussian_moments(process, Adaptation(nodes=4_000, start=start))
    for got, want in zip(exact, other):
        assert float((got / exact.weight).flatten()[0]) == pytest.approx(
            float((want / other.weight).flatten()[0]), abs=0.01
        )


def test_exact_moments_of_pieces_add_up() -> None:
    one = cv.gaussian_process("VSCLD", STD, 5.0, stiffness=2.0)
    four = one.with_stiffness(torch.full((4, 1), 2.0, dtype=torch.float64))
    whole = cv.exact_moments(one, Adaptation(nodes=24))
    parts = cv.exact_moments(four, Adaptation(nodes=12, pieces=4))
    assert parts.xx.shape == (4, 1)
    for a, b in zip(whole, parts):
        assert float(b.sum()) == pytest.approx(float(a.sum()), rel=1e-9)
    assert float(parts.xx[0] / parts.weight[0]) > float(parts.xx[-1] / parts.weight[-1])  # pieces run with t


def test_fits_are_scipy_s() -> None:
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, 30)
    y = 3 * x + rng.standard_normal(30)
    want = stats.linregress(x, y)
    margin = stats.t.ppf(0.975, 28) * want.stderr
    found = cv.fit(x, y)
    assert found[:3] == pytest.approx((want.slope, want.slope - margin, want.slope + margin))
    assert found.n == 30
    both = cv.fit(x, y + 5 * np.sin(9 * x), np.sin(9 * x))
    assert both.slope == pytest.approx(cv.fit(x, y, np.sin(9 * x)).slope)
    assert cv.power([1, 2, 4, 8], [3, 12, 48, 192])[:3] == pytest.approx((2, 2, 2))
    assert math.isnan(cv.fit([1, 2], [1, 2]).low)
    values = rng.standard_normal(9)
    low, high = stats.t.interval(0.95, 8, values.mean(), stats.sem(values))
    assert cv.mean(values) == pytest.approx((values.mean(), low, high, 9))
