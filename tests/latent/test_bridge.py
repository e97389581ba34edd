"""The bridge: a Brownian motion among the processes, its marginals, its drift against closed forms, its warnings."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor, nn

from vsmd import forward_process
from vsmd.latent import drift, schrodinger_bridge
from vsmd.latent.bridge import paper_time, process_time, sigma_of, stopped, warn_outside_theory
from vsmd.model import Model
from vsmd.random import generator

MEANS = torch.tensor([[-1.5, 0.5], [1.0, 1.0], [0.5, -2.0]], dtype=torch.float64)
SPREAD = 0.3


def points(n: int, seed: int = 0) -> Tensor:
    stream = generator(seed, "points")
    noise = torch.randn(n, 2, generator=stream, dtype=torch.float64)
    return MEANS[torch.randint(3, (n,), generator=stream)] + SPREAD * noise


def true_score(x: Tensor, s: float) -> Tensor:
    """∇log of the equal mixture of N(mean, (SPREAD² + s²) I)."""
    var = SPREAD**2 + s**2
    weight = (-0.5 * torch.cdist(x, MEANS).square() / var).softmax(1)
    return (weight @ MEANS - x) / var


class Oracle(nn.Module):
    """E[target | z] for that mixture, so that the score is exact: target = (xi - snr n)/√(1 + snr²) from the score."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.process = model.process

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        mean, var = self.process.known()
        std = var.sqrt()
        snr = log_snr.double().exp()
        s = std / snr  # the noise, the same in all directions
        centred = z.double() * (std.square() + s.square()).sqrt()
        x = self.process.basis.back(centred) + mean
        score = self.process.basis.into(true_score(x, float(s.flatten()[0])))
        gaussian = -centred / (std.square() + s.square())
        return ((score - gaussian) * s * (std.square() + s.square()).sqrt() / std).float()


class Zero(nn.Module):
    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.zeros_like(z)


def known(sigma: float, data: Tensor, network: nn.Module | None = None) -> Model:
    process = schrodinger_bridge((2,), sigma=sigma)
    return Model(process.with_data(data).with_prior("empirical", data), network or Zero())


def test_forward_process_is_a_brownian_motion() -> None:
    """Mean map 1, covariance sigma² at the end; with time in the paper's clock s² = sigma² (1 - t)."""
    process = schrodinger_bridge((3,), sigma=1.7)
    assert process.method == "LSBDM"
    assert process.row.early_stop
    assert not forward_process("SGM", (3,)).row.early_stop
    assert sigma_of(process) == pytest.approx(1.7)
    t = torch.tensor([1e-3, 0.2, 0.7, 1.0], dtype=torch.float64)
    mean, cov = process.transition(t)
    torch.testing.assert_close(mean, torch.ones_like(mean))
    expected = 1.7**2 * (1 - paper_time(process, t))
    torch.testing.assert_close(cov[..., 0, 0], expected[:, None].expand(4, 3), rtol=1e-9, atol=0)
    for stop in (0.1, 0.5, 0.99, 0.9999):
        assert float(paper_time(process, torch.tensor(process_time(stop)))) == pytest.approx(stop, abs=1e-6)


def test_start_is_the_smoothed_law_of_the_codes() -> None:
    data = points(400)
    process = known(2.0, data).process
    start, moments = process.prior_law().sample(50_000, generator(0, "start"))[:, 0].double(), process.known()
    torch.testing.assert_close(start.mean(0), torch.zeros(2, dtype=torch.float64), atol=0.05, rtol=0)
    torch.testing.assert_close(start.var(0), moments.var + 4.0, rtol=0.03, atol=0)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.9, 0.999])
def test_drift_of_gaussian_codes_is_exact_without_training(t: float) -> None:
    """-σ² C_t⁻¹ (x - m), C_t = C + σ²(1 - t) I, correlations included."""
    cov = torch.tensor([[2.0, 0.9], [0.9, 0.6]], dtype=torch.float64)
    data = points(500) @ torch.linalg.cholesky(cov).T
    model = known(1.5, data)
    x = 2 * torch.randn(20, 2, generator=generator(0, "x"), dtype=torch.float64)
    c = torch.cov(data.T, correction=0) + 1.5**2 * (1 - t) * torch.eye(2)
    expected = -(1.5**2) * torch.linalg.solve(c, (x - data.mean(0)).T).T
    torch.testing.assert_close(drift(model, x, t).double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("t", [0.0, 0.5, 0.99])
def test_drift_with_the_exact_network(t: float) -> None:
    data = points(4_000)
    model = known(2.0, data)
    exact = Model(model.process, Oracle(model))
    x = points(30, seed=1) + 2 * math.sqrt(1 - t) * torch.randn(30, 2, generator=generator(1, "x"), dtype=torch.float64)
    expected = 4.0 * true_score(x, 2 * math.sqrt(1 - t))
    torch.testing.assert_close(drift(exact, x, t).double(), expected, rtol=2e-3, atol=2e-3)


def test_exact_bridge_generates_the_codes_law() -> None:
    """The paper's SDE by Euler–Maruyama from the smoothed start: modes, their shares and widths."""
    model = known(2.0, points(5_000))
    exact = Model(model.process, Oracle(model))
    x = stopped(exact, 0.9995).sample(6_000, solver="euler-maruyama", steps=60, seed=0).double()
    nearest = torch.cdist(x, MEANS).argmin(1)
    share = torch.bincount(nearest, minlength=3) / len(x)
    assert (share - 1 / 3).abs().max() < 5 * math.sqrt(2 / 9 / 6_000)
    for k in range(3):
        mine = x[nearest == k]
        torch.testing.assert_close(mine.mean(0), MEANS[k], atol=0.04, rtol=0)
        torch.testing.assert_close(mine.std(0), torch.full((2,), SPREAD, dtype=torch.float64), atol=0.04, rtol=0)


def test_early_stopping_leaves_its_noise() -> None:
    """Stopped at t the law is q_{σ√(1-t)}: for Gaussian codes variance C + σ²(1 - t)."""
    model = known(1.0, torch.randn(2_000, 2, generator=generator(0, "g"), dtype=torch.float64))
    early = stopped(model, 0.8).sample(20_000, steps=30).double()
    torch.testing.assert_close(early.var(0), torch.full((2,), 1.2, dtype=torch.float64), rtol=0.06, atol=0)


@pytest.mark.parametrize("stop", [0.0, 1.0, -0.1, 2.0, math.nan, True])
def test_bad_stop(stop: float) -> None:
    with pytest.raises(ValueError, match=r"^stop=.*: the early-stopping time must be in \(0, 1\)$"):
        stopped(known(1.0, points(10)), stop)


def test_stop_that_training_or_grids_do_not_reach() -> None:
    with pytest.raises(ValueError, match=r"^stop=0.5: must be between 0.7475 and 0.9999\d+, "):
        stopped(known(1.0, points(10)), 0.5)
    with pytest.raises(ValueError, match=r"^stop=0.9999999: must be between 0.7475 and"):
        stopped(known(1.0, points(10)), 0.9999999)


@pytest.mark.parametrize("sigma", [1e-200, 1e200])
def test_sigma_within_bounds(sigma: float) -> None:
    with pytest.raises(ValueError, match=r"^sigma=.*: must be a number between 0.01 and 100$"):
        schrodinger_bridge((2,), sigma=sigma)
    assert sigma_of(schrodinger_bridge((2,), sigma=0.01)) == pytest.approx(0.01)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_bad_sigma(sigma: float) -> None:
    with pytest.raises(ValueError, match=r"^sigma=.*: must be a finite number > 0$"):
        schrodinger_bridge((2,), sigma=sigma)


def test_sigma_outside_the_theory() -> None:
    """Two modes at ±1 of width .1: q_σ has one maximum from σ² = 1 - .01 on; the warning says which condition fails."""
    stream = generator(0, "modes")
    modes = 2.0 * torch.randint(2, (2_000, 1), generator=stream) - 1
    codes = modes + 0.1 * torch.randn(2_000, 1, generator=stream)
    with pytest.warns(UserWarning, match=r"^sigma=0.4: too small: .* not log-concave \(Cov\(code \| X_0\) reaches"):
        warn_outside_theory(0.4, 0.999, codes)
    with pytest.warns(
        UserWarning, match=r"^sigma=40: too large for stop=0.999: early stopping leaves noise of std 1.26"
    ):
        warn_outside_theory(40.0, 0.999, codes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_outside_theory(1.2, 0.999, codes)
        warn_outside_theory(1.0, 0.999, torch.randn(2_000, 3, generator=stream))
