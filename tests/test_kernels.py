"""vsmd.kernels against many-digit exponentials and ODEs: every damping regime, small steps, any sign of s and c."""

from __future__ import annotations

import itertools
import math
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import Array, kernel_mp, moments_by_ode, ratio
from torch import Tensor

from vsmd import kernels
from vsmd.kernels import Kernel, channel, compose, lower_cholesky

GAMMA = 2.0
CORNERS = [
    (s, zeta, 0.5 * beta * t)
    for s, zeta, beta, t in itertools.product(
        (1e-2, 1.0, 1e2), (0.1, 0.7, 1 - 1e-8, 1.0, 1 + 1e-8, 3.0), (5.0, 20.0), (1e-6, 1e-3, 0.05, 1.0)
    )
]


def interior(n: int) -> list[Any]:
    """n points (s, zeta, tau) spread log-uniformly over the promised range, half of them close to zeta = 1."""
    rng = np.random.default_rng(0)
    s, tau = 10 ** rng.uniform(-2, 2, n), rng.choice([2.5, 10.0], n) * 10 ** rng.uniform(-6, 0, n)
    near = 1 + rng.choice([-1, 1], n) * 10 ** rng.uniform(-9, -1, n)
    zeta = np.where(rng.random(n) < 0.5, near, 10 ** rng.uniform(-1, math.log10(3), n))
    return np.stack([s, zeta, tau], 1).tolist()


POINTS = CORNERS + interior(120)


def friction(s: Any, zeta: Any) -> Any:
    """c = (2/gamma) zeta sqrt(s), paper (14) with zeta = sqrt R."""
    return 2 / GAMMA * zeta * s**0.5


def tensor(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def momentum(tau: Any, s: Any, c: Any, gamma: float = GAMMA) -> Kernel:
    """The kernel under test, for numbers and arrays."""
    return kernels.momentum(tensor(tau), tensor(s), tensor(c), gamma)


def overdamped(tau: Any, drift: Any) -> Kernel:
    return kernels.overdamped(tensor(tau), tensor(drift))


def dense(matrix: kernels.Matrix) -> Array:
    """Entries (..., 2, 2)."""
    return torch.stack([torch.stack(torch.broadcast_tensors(*row), -1) for row in matrix], -2).detach().numpy()


def floats(matrix: Any) -> Array:
    return np.array(matrix.tolist(), dtype=np.float64)


def at_points(v0: float = 0.0) -> tuple[Kernel, Array]:
    """The kernel at all POINTS in one call, and its covariance from Sigma_0 = diag(0, v0)."""
    s, zeta, tau = np.array(POINTS).T
    kernel = momentum(tau, s, friction(s, zeta))
    u = dense(kernel.mean)[..., :, 1]
    return kernel, dense(kernel.noise) + v0 * u[..., :, None] * u[..., None, :]


@pytest.fixture(scope="module")
def exact() -> list[tuple[Any, Any]]:
    """F and N at POINTS to sixty digits."""
    return [kernel_mp(tau, s, friction(s, zeta)) for s, zeta, tau in POINTS]


# --- mean and covariance ----------------------------------------------------------------------------------------------


def test_mean_against_many_digits(exact: list[tuple[Any, Any]]) -> None:
    kernel, _ = at_points()
    want = np.stack([floats(f) for f, _ in exact])
    scale = np.abs(want).max((1, 2), keepdims=True) + 1  # entries of F pass through zero
    assert (np.abs(dense(kernel.mean) - want) / scale).max() <= 1e-12


@pytest.mark.parametrize("v0", [0.0, 1.0])
def test_covariance_against_many_digits(exact: list[tuple[Any, Any]], v0: float) -> None:
    _, cov = at_points(v0)
    want = np.stack([floats(n + v0 * f[:, 1] * f[:, 1].T) for f, n in exact])
    assert ratio(cov - want, want) <= 1e-10


@pytest.mark.parametrize("v0", [0.0, 1.0])
def test_cholesky_against_many_digits(exact: list[tuple[Any, Any]], v0: float) -> None:
    """L_vv too, which the difference Sigma_vv - Sigma_xv^2/Sigma_xx loses at small tau."""
    kernel, _ = at_points()
    got = torch.stack(lower_cholesky(kernel, v0), -1).numpy()
    want = []
    for f, n in exact:
        with mp.workdps(60):
            cov = n + v0 * f[:, 1] * f[:, 1].T
            lxx = mp.sqrt(cov[0, 0])
            lvx = cov[1, 0] / lxx
            want.append([lxx, lvx, mp.sqrt(cov[1, 1] - lvx**2)])
    target = np.array(want, dtype=np.float64)
    scale = target.copy()
    scale[:, 1] = np.hypot(target[:, 1], target[:, 2])  # L_vx passes through zero
    assert (np.abs(got - target) / scale).max() <= 1e-9


def test_one_call_or_many() -> None:
    """Directions in one call do not disturb each other beyond rounding."""
    kernel, cov = at_points()
    for i in range(0, len(POINTS), 7):
        s, zeta, tau = POINTS[i]
        alone = momentum([tau], [s], [friction(s, zeta)])
        assert ratio(dense(alone.noise)[0] - cov[i], cov[i]) <= 1e-11
        assert np.abs(dense(alone.mean)[0] - dense(kernel.mean)[i]).max() <= 1e-12 * max(1, s**0.5)


SIGNS = list(itertools.product((-4.0, -0.3, 0.0, 1e-9, 0.5, 30.0), (-1.5, 0.0, 1e-9, 0.2, 3.0), (1e-3, 0.3, 2.5)))


@pytest.mark.parametrize("v0", [0.0, 1.0])
def test_against_the_moment_equations(v0: float) -> None:
    """(6a)–(6b) integrated with tight tolerances: all regimes, and s <= 0 or c <= 0, where no stationary law exists."""
    s, c, tau = np.array([(s, friction(s, zeta), tau) for s, zeta, tau in CORNERS if tau >= 2e-3] + SIGNS).T
    mean, cov = moments_by_ode(s, c, tau, v0, GAMMA)
    kernel = momentum(tau, s, c)
    u = dense(kernel.mean)[..., :, 1]
    assert ratio(dense(kernel.noise) + v0 * u[..., :, None] * u[..., None, :] - cov, cov) <= 1e-10
    assert (np.abs(dense(kernel.mean) - mean) / (np.abs(mean).max((1, 2), keepdims=True) + 1)).max() <= 1e-10


SIGNED = st.floats(-30, 30).filter(lambda v: v == 0 or abs(v) > 1e-12) | st.sampled_from([0.0, 1e-12, -1e-12, 1e2])


@settings(max_examples=80)
@given(s=SIGNED, c=st.floats(-3, 20), log_tau=st.floats(-6, 0.4), gamma=st.floats(0.2, 5))
def test_any_signs_against_many_digits(s: float, c: float, log_tau: float, gamma: float) -> None:
    tau = 10**log_tau
    f, n = kernel_mp(tau, s, c, gamma)
    kernel = momentum(tau, s, c, gamma)
    want, mean = floats(n), floats(f)
    assert ratio(dense(kernel.noise) - want, want) <= 1e-10
    assert np.abs(dense(kernel.mean) - mean).max() <= 1e-11 * (1 + np.abs(mean).max())


REGULAR = {"log_s": st.floats(-2, 2), "zeta": st.floats(0.1, 3), "log_tau": st.floats(-6, 1)}


@given(**REGULAR)
def test_positive_definite(log_s: float, zeta: float, log_tau: float) -> None:
    s, tau = 10**log_s, 10**log_tau
    kernel = momentum(tau, s, friction(s, zeta))
    for v0 in (0.0, 1.0):
        chol = lower_cholesky(kernel, v0)
        assert all(bool(torch.isfinite(e)) for e in chol)
        assert float(chol[0]) > 0
        assert float(chol[2]) > 0


@given(**REGULAR, share=st.floats(0.05, 0.95))
def test_two_steps_are_one(log_s: float, zeta: float, log_tau: float, share: float) -> None:
    s, tau = 10**log_s, 10**log_tau
    c = friction(s, zeta)
    first, second, whole = (momentum(w * tau, s, c) for w in (share, 1 - share, 1.0))
    both = compose(first, second)
    want = dense(whole.noise)
    assert ratio(dense(both.noise) - want, want) <= 1e-11
    assert np.abs(dense(both.mean) - dense(whole.mean)).max() <= 1e-11 * max(1, s**0.5)


def test_composition_order() -> None:
    """Two different steps do not commute: first acts first."""
    one, two = (momentum(0.4, s, c) for s, c in ((1.0, 1.0), (9.0, 0.5)))
    f1, n1, f2, n2 = dense(one.mean), dense(one.noise), dense(two.mean), dense(two.noise)
    both = compose(one, two)
    np.testing.assert_allclose(dense(both.mean), f2 @ f1, rtol=1e-14)
    np.testing.assert_allclose(dense(both.noise), f2 @ n1 @ f2.T + n2, rtol=1e-14)
    assert np.abs(dense(compose(two, one).mean) - f2 @ f1).max() > 0.1


@given(log_s=st.floats(-2, 2), zeta=st.floats(0.1, 3))
def test_lemma_1(log_s: float, zeta: float) -> None:
    """The stationary covariance solves the Lyapunov equation, and the kernel tends to it."""
    s = 10**log_s
    c = friction(s, zeta)
    limit = np.diag([float(v) for v in kernels.stationary(tensor(s), tensor(c))])
    m = np.array([[0, 1], [-s, -GAMMA * c]])
    residual = m @ limit + limit @ m.T + np.diag([0, 2 * GAMMA])
    assert np.abs(residual).max() <= 1e-13 * GAMMA * (1 + limit[0, 0] * s)
    slowest = s**0.5 * (zeta - math.sqrt(max(zeta * zeta - 1, 0)))
    late = momentum(25 / slowest, s, c)
    assert ratio(dense(late.noise) - limit, limit) <= 1e-12
    assert np.abs(dense(late.mean)).max() <= 1e-8 * max(1, s)


# --- gradients --------------------------------------------------------------------------------------------------------


def entries(tau: Tensor, s: Tensor, c: Tensor) -> Tensor:
    """F_xx, F_xv, F_vx, F_vv, N_xx, N_xv, N_vv, L_vv with v_0 marginalised."""
    kernel = momentum(tau, s, c)
    (nxx, nxv), (_, nvv) = kernel.noise
    return torch.stack([e for row in kernel.mean for e in row] + [nxx, nxv, nvv, lower_cholesky(kernel)[2]])


def entries_mp(tau: Any, s: Any, c: Any) -> list[Any]:
    f, n = kernel_mp(tau, s, c, GAMMA, digits=110)
    u = f[:, 1]
    cov = n + u * u.T
    lvv = mp.sqrt(cov[1, 1] - cov[0, 1] ** 2 / cov[0, 0])
    return [f[0, 0], f[0, 1], f[1, 0], f[1, 1], n[0, 0], n[0, 1], n[1, 1], lvv]


@pytest.mark.parametrize(
    ("tau", "s", "c"),
    [
        (0.8, 4.0, 2.0),  # zeta = 1 exactly
        (1e-3, 4.0, 2.0),
        (0.5, 1.0, 1.0 + 1e-8),
        (2.5, 4.0, 2.0 - 1e-9),
        (2.5, 9.0, 0.9),  # oscillating
        (0.02, 20.0, 11.0),  # overdamped
        (10.0, 1.0, 0.7),
        (1e-5, 0.3, 0.6),
        (0.7, -2.0, 0.5),
        (0.7, 0.0, 0.0),
        (0.7, 3.0, -0.4),
    ],
)
def test_gradients_against_many_digits(tau: float, s: float, c: float) -> None:
    """Automatic derivatives in tau, s and c against central differences at 110 digits, in units of the entry."""
    point = tensor(tau), tensor(s), tensor(c)
    jacobian = torch.stack(torch.autograd.functional.jacobian(entries, point), -1).numpy()
    assert np.isfinite(jacobian).all()
    value = np.array([float(e) for e in entries_mp(tau, s, c)])
    nxx, nvv = value[4], value[6]
    scale = np.array([1, 1, 1, 1, nxx, math.sqrt(nxx * nvv), nvv, value[7]])
    with mp.workdps(110):
        h = mp.mpf(10) ** -25
        for k, unit in enumerate((tau, max(1.0, abs(s)), max(1.0, abs(c)))):
            up, down = ([mp.mpf(v) + sign * h * (i == k) for i, v in enumerate((tau, s, c))] for sign in (1, -1))
            want = (np.array(entries_mp(*up)) - np.array(entries_mp(*down))) / (2 * h)
            error = np.abs(jacobian[:, k] - want.astype(np.float64)) * unit / scale
            assert error.max() <= 1e-8, f"derivative {k}"


def test_gradients_are_finite_everywhere() -> None:
    """In one call over all regimes, through the Cholesky factor and the channel."""
    every = [(tau, s, friction(s, zeta)) for s, zeta, tau in CORNERS] + [(tau, s, c) for s, c, tau in SIGNS]
    tau, s, c = leaves = [tensor(column).requires_grad_() for column in np.array(every).T]
    kernel = momentum(tau, s, c)
    ch = channel(kernel, lower_cholesky(kernel), tensor(2.0))
    every_entry = (*kernel.mean[0], *kernel.noise[0], *kernel.noise[1], *ch.inp, *ch.gain, ch.out)
    grads = torch.autograd.grad(torch.stack([e.sum() for e in every_entry]).sum(), leaves)
    assert all(bool(torch.isfinite(g).all()) for g in grads)


# --- overdamped -------------------------------------------------------------------------------------------------------


@given(drift=st.floats(-5, 5) | st.sampled_from([0.0, 1e-13, -1e-13, 1e-9, 100.0]), log_tau=st.floats(-6, 1))
def test_overdamped(drift: float, log_tau: float) -> None:
    tau = 10**log_tau
    with mp.workdps(50):
        d, t = mp.mpf(drift), mp.mpf(tau)
        mean, variance = mp.exp(-d * t), 2 * t if d == 0 else -mp.expm1(-2 * d * t) / d
    kernel = overdamped(tau, drift)
    assert float(kernel.mean[0][0]) == pytest.approx(float(mean), rel=1e-13)
    assert float(kernel.noise[0][0]) == pytest.approx(float(variance), rel=2e-12)
    assert float(lower_cholesky(kernel)[0]) == pytest.approx(float(mp.sqrt(variance)), rel=2e-12)


def test_overdamped_gradient_at_zero_drift() -> None:
    """d variance / dD = -2 tau^2 at D = 0 (the limit's first order), finite in tau as well."""
    tau, drift = (tensor(v).requires_grad_() for v in ([0.5, 0.5, 0.5], [0.0, 1e-7, -1.0]))
    variance = overdamped(tau, drift).noise[0][0]
    by_tau, by_drift = torch.autograd.grad(variance.sum(), (tau, drift))
    np.testing.assert_allclose(by_tau.numpy(), 2 * np.exp(-2 * np.array([0, 1e-7, -1.0]) * 0.5), rtol=1e-8)
    assert by_drift[1] == pytest.approx(-2 * 0.5**2, rel=1e-5)
    assert bool(torch.isfinite(by_drift).all())


@given(drift=st.floats(-3, 3), log_tau=st.floats(-4, 0.5), share=st.floats(0.1, 0.9))
def test_overdamped_two_steps_are_one(drift: float, log_tau: float, share: float) -> None:
    tau = 10**log_tau
    first, second, whole = (overdamped(w * tau, drift) for w in (share, 1 - share, 1.0))
    both = compose(first, second)
    assert float(both.mean[0][0]) == pytest.approx(float(whole.mean[0][0]), rel=1e-13)
    assert float(both.noise[0][0]) == pytest.approx(float(whole.noise[0][0]), rel=1e-11)


# --- channel ----------------------------------------------------------------------------------------------------------

STDS = (1e-3, 0.3, 1.0, 18.7, 1e3)


@pytest.mark.parametrize("std", STDS)
def test_gain_is_the_gaussian_score(exact: list[tuple[Any, Any]], std: float) -> None:
    """gain = -(S_t^{-1})_v. by explicit inversion; kappa^2 = 1 - L_vv^2 (S_t^{-1})_vv; out = kappa / L_vv.

    The gain in units of the law: sqrt(S_jj) gain_j against the score's own size sqrt((S_t^{-1})_vv).
    """
    kernel, _ = at_points()
    chol = lower_cholesky(kernel)
    ch = channel(kernel, chol, tensor(std))
    worst = 0.0
    for i, (f, n) in enumerate(exact):
        with mp.workdps(60):
            cond = n + f[:, 1] * f[:, 1].T
            law = cond + mp.mpf(std) ** 2 * f[:, 0] * f[:, 0].T
            det = law[0, 0] * law[1, 1] - law[0, 1] ** 2
            gain = [law[0, 1] / det, -law[0, 0] / det]
            lvv2 = (cond[0, 0] * cond[1, 1] - cond[0, 1] ** 2) / cond[0, 0]
            kappa2 = 1 - lvv2 * law[0, 0] / det
            size = mp.sqrt(-gain[1])
            errors = [abs(mp.mpf(float(ch.gain[j][i])) - gain[j]) * mp.sqrt(law[j, j]) / size for j in range(2)]
            errors = [e / max(1, float(ch.snr[i]) / 1e6) for e in errors]  # x alone tells x_0: gain_x -> 0 cancels
            errors.append(abs(mp.mpf(float(ch.kappa[i])) ** 2 - kappa2) / max(kappa2, mp.mpf("1e-20")))
            errors.append(abs(mp.mpf(float(ch.out[i])) ** 2 * lvv2 - kappa2) / max(kappa2, mp.mpf("1e-20")))
            worst = max(worst, *(float(e) for e in errors))
    assert worst <= 1e-10


@pytest.mark.parametrize("std", STDS)
def test_denoising_target_is_gain_plus_network_target(std: float) -> None:
    """-eps_v/L_vv = gain . a + out target(xi, n), sample by sample: the network learns the denoising score itself.

    Hence eps_v - eps_v^ = -kappa (target - net), for every data law.
    """
    kernel, _ = at_points()
    chol = lower_cholesky(kernel)
    ch = channel(kernel, chol, tensor(std))
    rng = torch.Generator().manual_seed(0)
    xi, eps_x, eps_v = torch.randn(3, 20, 1, generator=rng, dtype=torch.float64)
    (fxx, _), (fvx, _) = kernel.mean
    lxx, lvx, lvv = chol
    a = fxx * std * xi + lxx * eps_x, fvx * std * xi + lvx * eps_x + lvv * eps_v
    z = ch.inp[0] * a[0] + ch.inp[1] * a[1]
    norm = (1 + ch.snr**2).sqrt()
    n = z * norm - ch.snr * xi
    target = (xi - ch.snr * n) / norm
    model = ch.gain[0] * a[0] + ch.gain[1] * a[1] + ch.out * target
    rounding = 1e-13 * (1 + ch.snr)  # of a, in units of its noise
    assert bool(((-eps_v / lvv - model).abs() * lvv <= rounding).all())
    net = torch.randn(20, len(POINTS), generator=rng, dtype=torch.float64)
    eps_model = -lvv * (ch.gain[0] * a[0] + ch.gain[1] * a[1] + ch.out * net)
    assert bool(((eps_v - eps_model + ch.kappa * (target - net)).abs() <= rounding).all())
    assert float((eps_v - eps_model).abs().max()) > 1  # the network matters


@pytest.mark.parametrize("std", STDS)
def test_the_statistic_is_standardised_noise_plus_signal(std: float) -> None:
    """z = inp . a has signal std snr/sqrt(1 + snr^2) and unit variance; snr^2 = |L^{-1} F_x|^2 std^2."""
    kernel, cov = at_points(1.0)
    ch = channel(kernel, lower_cholesky(kernel), tensor(std))
    fx = dense(kernel.mean)[..., 0]
    inp = torch.stack(ch.inp, -1).numpy()
    signal = (inp * fx).sum(-1) * std
    noise = np.einsum("ni,nij,nj->n", inp, cov, inp)
    snr = ch.snr.numpy()
    np.testing.assert_allclose(np.abs(signal), snr / np.sqrt(1 + snr**2), rtol=1e-9)
    usable = snr < 1e4  # beyond, the noise share is below rounding of a covariance's quadratic form
    np.testing.assert_allclose(noise[usable], 1 / (1 + snr[usable] ** 2), rtol=1e-6)


def test_overdamped_channel() -> None:
    kernel = overdamped([0.01, 0.5, 3.0], [1.0, 0.5, -0.5])
    std = tensor(3.0)
    ch = channel(kernel, lower_cholesky(kernel), std)
    mean, noise = kernel.mean[0][0], kernel.noise[0][0]
    law = mean**2 * std**2 + noise
    np.testing.assert_allclose(ch.gain[0].numpy(), (-1 / law).numpy(), rtol=1e-12)
    np.testing.assert_allclose((ch.kappa**2).numpy(), (1 - noise / law).numpy(), rtol=1e-10)
    np.testing.assert_allclose((ch.out**2 * noise).numpy(), (1 - noise / law).numpy(), rtol=1e-10)
    np.testing.assert_allclose((ch.inp[0] ** 2 * law).numpy(), 1, rtol=1e-12)


def test_constant_coordinates() -> None:
    """std = 0: no signal, nothing for the network to do, and the score of N(0, Sigma_t|0)."""
    kernel, _ = at_points(1.0)
    chol = lower_cholesky(kernel)
    ch = channel(kernel, chol, tensor(0.0))
    assert all(bool(torch.isfinite(e).all()) for e in (*ch.inp, *ch.gain, ch.out))
    assert float(ch.out.abs().max()) == float(ch.kappa.abs().max()) == float(ch.snr.abs().max()) == 0.0
    np.testing.assert_allclose(ch.gain[1].numpy(), (-1 / chol[2] ** 2).numpy(), rtol=1e-12)
