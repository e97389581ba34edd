"""vsmd.processes: laws against matrix exponentials and moment equations, damping, priors' KL, immutability."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import Array, kernel_np, ratio
from scipy.integrate import solve_ivp
from scipy.linalg import expm, sqrtm
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from vsmd.bases import basis_of
from vsmd.family import forward_process
from vsmd.kernels import Matrix
from vsmd.moments import Moments
from vsmd.priors import GaussianPrior
from vsmd.processes import ForwardProcess
from vsmd.schedules import BetaSchedule

MOMENTUM = ("CLD", "ULD", "VSCLD", "VSULD")
OVERDAMPED = ("SGM", "VSDM")
ALL = MOMENTUM + OVERDAMPED


def double(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def dense(matrix: Matrix, index: Any = ...) -> Array:
    """Entries (..., k, k)."""
    return torch.stack([torch.stack(row, -1) for row in matrix], -2).numpy()[index]


def varying(method: str, beta: Any = 5.0) -> ForwardProcess:
    """One direction whose A changes sign and size over four pieces, untied where there is a velocity."""
    process = forward_process(method, (1,), beta=beta)
    a_x = double(0.2, -0.9, 0.05, -0.3)[:, None]
    return process.with_variational_score(a_x, double(-0.6, 0.1, 0.4, -0.2)[:, None] if process.k == 2 else None)


# --- damping and stationary laws --------------------------------------------------------------------------------------


@given(st.floats(0.01, 0.99), st.floats(0.3, 5), st.floats(0.05, 50))
def test_damping_transform(damping: float, gamma: float, s: float) -> None:
    """(14): c = (2/gamma) sqrt(R s), so that sqrt R = gamma c/(2 sqrt s) is the damping ratio."""
    process = forward_process("VSULD", (1,), damping=damping, gamma=gamma).with_stiffness(double([s]))
    assert float(process.stiffness) == pytest.approx(s, rel=1e-10)
    assert gamma * float(process.friction) / (2 * math.sqrt(s)) == pytest.approx(math.sqrt(damping), rel=1e-9)
    assert process.a_v is not None
    assert float(process.a_x) == pytest.approx((1 - s) / (2 * gamma), rel=1e-9, abs=1e-12)
    assert float(process.a_v) == pytest.approx((1 - 2 / gamma * math.sqrt(damping * s)) / 2, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("method", "damping"), [("CLD", None), ("ULD", None), ("ULD", 0.3), ("VSULD", 0.05)])
def test_reference_stationary_law(method: str, damping: float | None) -> None:
    """At gamma = 2 and A_x = 0 the law tends to I / sqrt R: N(0, I) for critical damping only."""
    process = forward_process(method, (1,), damping=damping, beta=400.0)
    assert process.damping is not None
    law = process.transition(1.0)
    np.testing.assert_allclose(law.cov[0].numpy(), np.eye(2) / math.sqrt(process.damping), atol=1e-12)
    np.testing.assert_allclose(law.mean[0].numpy(), 0, atol=1e-12)
    assert process.reference_variance() == pytest.approx(1 / math.sqrt(process.damping), rel=1e-14)


@pytest.mark.parametrize("gamma", [0.5, 3.0])
def test_stationary_law_for_any_gamma(gamma: float) -> None:
    process = forward_process("ULD", (1,), damping=0.6, gamma=gamma, beta=600.0)
    law = process.transition(1.0).cov[0].numpy()
    np.testing.assert_allclose(law, process.reference_variance() * np.eye(2), atol=1e-10)


def test_variance_preserving() -> None:
    """SGM: x_t = e^{-B/2} x_0 + sqrt(1 - e^{-B}) eps, B the integral of beta."""
    schedule = BetaSchedule(0.1, 20.0)
    law = forward_process("SGM", (1,), beta=schedule).transition(double(0.01, 0.4, 1.0))
    b = 0.1 * np.array([0.01, 0.4, 1]) + 19.9 / 2 * np.array([0.01, 0.4, 1]) ** 2
    np.testing.assert_allclose(law.mean[:, 0, 0, 0].numpy(), np.exp(-b / 2), rtol=1e-13)
    np.testing.assert_allclose(law.cov[:, 0, 0, 0].numpy(), 1 - np.exp(-b), rtol=1e-12)


# --- transition -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ALL)
def test_transition_shapes(method: str) -> None:
    process = forward_process(method, (2, 3))
    k = process.k
    for times, lead in ((0.5, ()), (double(0.5), (1,)), (double(0.1, 0.5, 1.0), (3,)), (torch.tensor(0.5), ())):
        law = process.transition(times)
        assert law.mean.shape == law.cov.shape == (*lead, 2, 3, k, k)
        assert law.mean.dtype == law.cov.dtype == torch.float64


@pytest.mark.parametrize("method", MOMENTUM)
def test_hybrid_is_plain_with_v0_marginalised(method: str) -> None:
    hybrid, plain = (forward_process(method, (1,), score_matching=m) for m in ("hybrid", "plain"))
    t = double(1e-4, 0.1, 1.0)
    one, two = hybrid.transition(t), plain.transition(t)
    assert torch.equal(one.mean, two.mean)
    u = one.mean[..., :, 1:]
    torch.testing.assert_close(one.cov, two.cov + u @ u.mT, rtol=1e-13, atol=0)
    start = hybrid.transition(1e-9).cov[0]
    np.testing.assert_allclose(start.numpy(), np.diag([0, 1]), atol=1e-7)


@pytest.mark.parametrize("times", [0.0, -0.1, 1.0001, math.nan, [0.5, 0.0], []])
def test_times_outside(times: Any) -> None:
    with pytest.raises(ValueError, match=r"^t=.*must be in \(0, 1\]$"):
        forward_process("CLD", (2,)).transition(torch.tensor(times) if isinstance(times, list) else times)


def naive(process: ForwardProcess, t: float) -> Array:
    """(7): exp of the integrated drift, right only if the drifts of different times commute."""
    total = np.zeros((2, 2))
    for j in range(process.pieces):
        low, high = j / process.pieces, min(t, (j + 1) / process.pieces)
        if high > low:
            s, c = float(process.stiffness[j]), float(process.friction[j])
            span = process.schedule.clock(double(low, high)).diff().item()
            total += span * np.array([[0, 1], [-s, -process.gamma * c]])
    return np.asarray(expm(total))


def by_moment_equations(process: ForwardProcess, t: float, v0: float) -> tuple[Array, Array]:
    """F and Sigma at t by integrating (6a)–(6b) in t, piece after piece."""
    k, schedule = process.k, process.schedule
    f, cov = np.eye(k), np.diag([0.0, v0][:k])
    knots = np.linspace(0, 1, process.pieces + 1)
    for j, (low, high) in enumerate(zip(knots[:-1], np.minimum(knots[1:], t), strict=True)):
        if high <= low:
            break
        s = float(process.stiffness[j])
        m = np.array([[-s]]) if k == 1 else np.array([[0, 1], [-s, -process.gamma * float(process.friction[j])]])
        q = np.zeros((k, k))
        q[-1, -1] = 2 * (process.gamma if k == 2 else 1)

        def rates(u: float, y: Array, m: Array = m, q: Array = q) -> Array:
            half = 0.5 * (schedule.b_min + (schedule.b_max - schedule.b_min) * u**schedule.power)
            f, cov = y.reshape(2, k, k)
            return half * np.concatenate([(m @ f).ravel(), (m @ cov + cov @ m.T + q).ravel()])

        start = np.concatenate([f.ravel(), cov.ravel()])
        y = solve_ivp(rates, (low, high), start, method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
        f, cov = y.reshape(2, k, k)
    return f, cov


@pytest.mark.parametrize("beta", [5.0, BetaSchedule(0.1, 10.0, 1.7)])
@pytest.mark.parametrize("method", ["VSULD", "VSDM"])
@pytest.mark.parametrize("t", [0.03, 0.25, 0.6, 1.0])
def test_varying_score_against_moment_equations(method: str, beta: Any, t: float) -> None:
    process = varying(method, beta)
    mean, cov = by_moment_equations(process, t, 1.0)
    law = process.transition(t)
    assert ratio(law.cov[0].numpy() - cov, cov) < 1e-9
    assert np.abs(law.mean[0].numpy() - mean).max() < 1e-9
    if process.k == 2 and t > 0.5:  # and (7) would not have done
        assert np.abs(naive(process, t) - mean).max() > 0.05


@pytest.mark.parametrize("method", ALL)
def test_pieces_that_agree_are_one(method: str) -> None:
    process = forward_process(method, (2,), beta=BetaSchedule(0.1, 10.0))
    stiffness = double([0.4, 7.0])
    one, many = (process.with_stiffness(stiffness.expand(n, 2)) for n in (1, 7))
    t = torch.cat([torch.linspace(0, 1, 29, dtype=torch.float64)[1:], double(1e-5)])
    law, same = one.transition(t), many.transition(t)
    torch.testing.assert_close(law.cov, same.cov, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(law.mean, same.mean, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", ["VSCLD", "VSULD", "VSDM"])
def test_full_matrix_by_hand(method: str) -> None:
    """A symmetric A is one rotation: against the exponential of the whole 2d x 2d (or d x d) matrix."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 3))
    a = 0.2 * np.eye(3) - root @ root.T / 3
    process = forward_process(method, (3,), variational_score=torch.tensor(a), gamma=1.5, beta=4.0)
    assert process.basis.name == "orthogonal"
    d, k, gamma = 3, process.k, process.gamma
    if k == 1:
        m, q = -(np.eye(d) - 2 * a), 2 * np.eye(d)
    else:
        assert process.damping is not None
        stiffness = np.eye(d) - 2 * gamma * a
        friction = 2 / gamma * math.sqrt(process.damping) * np.real(sqrtm(stiffness))
        m = np.block([[np.zeros((d, d)), np.eye(d)], [-stiffness, -gamma * friction]])
        q = np.diag([0.0] * d + [2 * gamma] * d)
    mean, noise = kernel_np(m, q, 0.5 * 4.0 * 0.7)
    basis = process.basis.tensors["matrix"].numpy()

    def whole(matrix: Matrix) -> Array:
        return np.block([[basis @ np.diag(e[0].numpy()) @ basis.T for e in row] for row in matrix])

    kernel = process.kernel(double(0.7))
    np.testing.assert_allclose(whole(kernel.mean), mean, atol=1e-12)
    np.testing.assert_allclose(whole(kernel.noise), noise, atol=1e-12)


def test_diagonal_matrix_given_in_full() -> None:
    """The same process whether a diagonal A comes as a vector or as a matrix, up to the order of directions."""
    a = double(-2.0, 0.1)
    vector, matrix = (forward_process("VSULD", (2,), variational_score=v) for v in (a, torch.diag(a)))
    one, two = vector.transition(0.3).cov, matrix.transition(0.3).cov
    order = matrix.basis.tensors["matrix"].abs().argmax(0)
    torch.testing.assert_close(one[order], two, rtol=1e-13, atol=1e-15)


# --- reverse coefficients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["CLD", "ULD", "VSULD", "SGM", "VSDM"])
@pytest.mark.parametrize("pieces", [1, 4])
def test_reverse_dynamics_keep_the_marginals(method: str, pieces: int) -> None:
    """(12) with the exact score of Gaussian data: the law of flow and SDE at t is the forward process's S_t."""
    process = forward_process(method, (1,), beta=BetaSchedule(1.0, 9.0, 1.7)) if pieces == 1 else varying(method)
    process = process.with_moments(double(0.0), double(3.0))
    t, h = double(0.05, 0.2, 0.6, 0.9), 1e-5
    laws = [dense(process.covariance(process.kernel(t + d), double(3.0)), (slice(None), 0)) for d in (-h, 0.0, h)]
    at = process.coefficients(t, dtype=torch.float64)
    k = process.k
    for i in range(len(t)):
        s, backward = laws[1][i], -(laws[2][i] - laws[0][i]) / (2 * h)
        gain = np.array([float(g[i, 0]) for g in at.gain])
        np.testing.assert_allclose(gain, -np.linalg.inv(s)[-1], rtol=1e-8)
        noise = float(at.noise[i].max())
        for share in (0.5, 1.0):
            drift = np.zeros((k, k))
            if k == 2:
                drift[0, 1] = -float(at.beta[i].max()) / 2
            drift[-1] = [float(r[i, 0]) for r in at.row] + share * noise * gain
            rate = drift @ s + s @ drift.T
            rate[-1, -1] += (2 * share - 1) * noise
            np.testing.assert_allclose(rate, backward, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["VSULD", "VSDM"])
def test_coefficient_tables(method: str) -> None:
    """(n, *shape) or (n, 1…) float32 by default; `at` takes one time or several; constant columns stay finite."""
    process = forward_process(method, (2, 2)).with_moments(torch.zeros(2, 2), double([1.0, 4.0], [0.0, 1e-8]))
    at = process.coefficients(double(1e-3, 0.5, 1.0))
    for entry in (at.beta, at.noise, at.out, at.log_snr, at.kappa, *at.row, *at.inp, *at.gain):
        assert entry.dtype == torch.float32
        assert entry.shape in {(3, 2, 2), (3, 1, 1)}
        assert bool(torch.isfinite(entry).all())
    assert len(at.row) == len(at.inp) == len(at.gain) == process.k
    one, some = at.at(1), at.at(slice(1, 3))
    assert torch.equal(one.out, at.out[1])
    assert torch.equal(some.gain[0], at.gain[0][1:])
    assert float(at.out[:, 1, 0].abs().max()) == 0


@pytest.mark.parametrize("method", ["CLD", "SGM"])
def test_snr_falls_from_infinity(method: str) -> None:
    """The channel's level is high near the data, low at the end, and proportional to the data's scale."""
    process = forward_process(method, (2,), beta=8.0).with_moments(torch.zeros(2), double(1.0, 9.0))
    snr, kappa = process.snr(torch.linspace(1e-3, 1, 50, dtype=torch.float64))
    assert bool((snr.diff(dim=0) < 0).all())
    torch.testing.assert_close(snr[:, 1], 3 * snr[:, 0], rtol=1e-12, atol=0)
    assert float(snr[0, 0]) > 5
    assert float(snr[-1, 0]) < 0.2
    assert float(kappa.abs().max()) <= 1


# --- prior ------------------------------------------------------------------------------------------------------------

SPIRAL = 18.7**2
TABLE = [
    ("CLD", 5.0, 1.0, 0.0046, 5e-5),
    ("CLD", 10.0, 1.0, 0.0, 5e-5),
    ("ULD", 5.0, 1.0, 0.0018, 5e-5),
    ("ULD", 10.0, 1.0, 0.0, 5e-5),
    ("CLD", 5.0, SPIRAL, 22.9, 0.05),
    ("CLD", 10.0, SPIRAL, 0.146, 5e-4),
    ("ULD", 5.0, SPIRAL, 13.4, 0.05),
    ("ULD", 10.0, SPIRAL, 0.0004, 5e-5),
]


@pytest.mark.parametrize(("method", "beta", "var", "want", "rounding"), TABLE)
def test_prior_kl_table(method: str, beta: float, var: float, want: float, rounding: float) -> None:
    """Figures 2 and 3 of the paper in eight numbers, to the digits printed."""
    kl = forward_process(method, (1,), beta=beta).moments_kl(0.0, var)
    assert float(kl) == pytest.approx(want, abs=rounding)


@given(st.sampled_from(ALL), st.floats(1, 20), st.floats(-3, 3), st.floats(0, 400))
def test_prior_kl_in_general(method: str, beta: float, mean: float, var: float) -> None:
    process = forward_process(method, (1,), beta=beta)
    k = process.k
    law = process.transition(1.0)
    f, prior = law.mean[0], law.cov[0]
    start = torch.diag(double(var, 0.0)[:k])  # v_0 is in the prior's covariance already
    want = kl_divergence(
        MultivariateNormal(f[:, 0] * mean, prior + f @ start @ f.T), MultivariateNormal(torch.zeros(k).double(), prior)
    )
    assert float(process.moments_kl(mean, var)) == pytest.approx(float(want), rel=1e-7, abs=1e-9)


def test_prior_kl_is_per_direction() -> None:
    process = forward_process("CLD", (2,))
    kl = process.moments_kl(0.0, double(1.0, SPIRAL))
    assert kl.shape == (2,)
    assert float(kl[1]) == pytest.approx(float(forward_process("CLD", (1,)).moments_kl(0.0, SPIRAL)))
    bad = ((0.0, -1.0, r"^var=-1 .* >= 0$"), (0.0, math.nan, r"^var: .*finite"), (math.inf, 1.0, r"^mean: .*finite"))
    for mean, var, message in bad:
        with pytest.raises(ValueError, match=message):
            process.moments_kl(mean, var)
    with pytest.raises(ValueError, match=r"^var: shape \(3,\); must be a number or \(2,\)$"):
        process.moments_kl(0.0, torch.ones(3))


@pytest.mark.parametrize("method", ["VSULD", "SGM"])
def test_prior_laws(method: str) -> None:
    """`gaussian` is the law of a_1 from x_0 = 0, `moments` that of Gaussian data; both with the x–v covariance."""
    for name, var in (("gaussian", 0.0), ("moments", 50.0)):
        process = forward_process(method, (1,), prior=name, beta=3.0).with_moments(double(1.0), double(50.0))
        law = process.transition(1.0)
        want = law.cov[0].numpy() + var * np.outer(law.mean[0, :, 0], law.mean[0, :, 0])
        prior = process.prior_law()
        assert isinstance(prior, GaussianPrior)
        np.testing.assert_allclose(dense(prior.cov, 0), want, rtol=1e-12)
        if process.k == 2:
            assert abs(want[0, 1]) > 1e-3


# --- what it is -------------------------------------------------------------------------------------------------------


def test_immutable() -> None:
    process = forward_process("VSULD", (2,))
    with pytest.raises(dataclasses.FrozenInstanceError):
        process.gamma = 3.0  # type: ignore[misc]
    stiff = process.with_stiffness(double([2.0, 5.0]))
    known = stiff.with_moments(torch.ones(2), torch.ones(2))
    assert torch.equal(process.stiffness, torch.ones(1, 2, dtype=torch.float64))
    assert process.moments is None
    assert stiff.moments is None
    assert torch.equal(known.stiffness, stiff.stiffness)
    assert process.settings == stiff.settings == known.settings


@pytest.mark.parametrize("method", ALL)
def test_settings_round_trip(method: str) -> None:
    """The settings are JSON, and the process comes back from them."""
    process = forward_process(method, (3, 2), beta=BetaSchedule(0.1, 10.0, 1.7), gamma=1.5, prior="moments")
    settings = json.loads(json.dumps(process.settings))
    assert settings == process.settings
    schedule, shape = BetaSchedule(**settings.pop("schedule")), tuple(settings.pop("shape"))
    basis = basis_of(settings.pop("basis"), shape)
    again = ForwardProcess(**settings, schedule=schedule, shape=shape, basis=basis, constant=process.constant)
    assert again.settings == process.settings
    for one, two in zip(again.transition(0.4), process.transition(0.4), strict=True):
        assert torch.equal(one, two)


def test_directions() -> None:
    """Centring and rotating, and back; the rotation diagonalises the given A."""
    a = double([0.0, -0.4], [-0.4, -1.0])
    mean = double(3.0, -1.0)
    process = forward_process("VSCLD", (2,), variational_score=a).with_moments(mean, double(1.0, 1.0))
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = process.to_directions(x)
    torch.testing.assert_close(process.from_directions(z), x, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(z.norm(dim=1), (x - mean).norm(dim=1), rtol=1e-13, atol=0)
    axes = process.basis.tensors["matrix"]
    rotated = axes.T @ a @ axes
    torch.testing.assert_close(rotated, torch.diag(process.a_x[0]), rtol=1e-13, atol=1e-13)
    into = process.basis.into
    torch.testing.assert_close(into(x) @ torch.diag(process.a_x[0]), into(x @ a))
    plain = forward_process("VSCLD", (2,)).with_moments(mean, double(1.0, 1.0))
    assert torch.equal(plain.to_directions(x), x - mean)


def test_before_data() -> None:
    process = forward_process("CLD", (2,), prior="moments")
    for call in (process.known, process.prior_law, lambda: process.coefficients(double(0.5))):
        with pytest.raises(ValueError, match=r"^moments=None: .*fit it or call with_moments"):
            call()
    assert isinstance(process.with_moments(torch.zeros(2), torch.ones(2)).known(), Moments)


def test_friction_needs_a_velocity() -> None:
    with pytest.raises(ValueError, match=r"^friction: SGM has no velocity"):
        _ = forward_process("SGM", (2,)).friction
