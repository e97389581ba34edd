"""vsmd.priors: drawn and scored like the normal law they are, and the KL divergence between two of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal, kl_divergence

from vsmd.family import forward_process
from vsmd.kernels import lower_cholesky
from vsmd.priors import GaussianPrior, gaussian_kl
from vsmd.processes import ForwardProcess

SIZE = st.floats(0.05, 20)
TILT = st.floats(-0.95, 0.95)


def entries(*covs: Any) -> Any:
    """Covariances (k, k), one a direction, as rows of tensors over directions."""
    stacked = torch.as_tensor(np.stack(covs, -1), dtype=torch.float64)
    return tuple(tuple(row) for row in stacked)


def cov2(sx: float, sv: float, r: float) -> np.ndarray[Any, Any]:
    return np.array([[sx * sx, r * sx * sv], [r * sx * sv, sv * sv]])


COVS = cov2(1.5, 0.4, 0.8), cov2(0.2, 3.0, -0.5), cov2(7.0, 1.0, 0.0)


@pytest.mark.parametrize("k", [1, 2])
def test_log_prob(k: int) -> None:
    covs = [c[:k, :k] for c in COVS]
    a = torch.randn(50, k, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    want = sum(
        MultivariateNormal(torch.zeros(k).double(), torch.tensor(c)).log_prob(a[..., i]) for i, c in enumerate(covs)
    )
    torch.testing.assert_close(GaussianPrior(entries(*covs)).log_prob(a), want, rtol=1e-12, atol=1e-12)


def test_log_prob_of_pictures() -> None:
    """Directions of any shape: (2, 2) here, float32 states in, float64 out."""
    prior = GaussianPrior(tuple(tuple(e[:1].expand(4).view(2, 2) for e in row) for row in entries(COVS[0])))
    a = torch.randn(5, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    flat = GaussianPrior(entries(*[COVS[0]] * 4)).log_prob(a.flatten(2))
    got = prior.log_prob(a)
    assert got.shape == (5,)
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, flat)


@pytest.mark.parametrize("k", [1, 2])
def test_samples_have_the_covariance(k: int) -> None:
    """Each entry of the sample covariance within five standard errors; the x-v covariance is there."""
    covs = [c[:k, :k] for c in COVS]
    n = 40_000
    a = GaussianPrior(entries(*covs)).sample(n, torch.Generator().manual_seed(1), torch.float64).numpy()
    assert a.shape == (n, k, 3)
    for i, cov in enumerate(covs):
        got = a[..., i].T @ a[..., i] / n
        error = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / n)
        assert (np.abs(got - cov) < 5 * error).all()
        assert (np.abs(a[..., i].mean(0)) < 5 * np.sqrt(np.diag(cov) / n)).all()


def test_samples_are_a_function_of_the_generator() -> None:
    prior = GaussianPrior(entries(*COVS))
    one, two, other = (prior.sample(9, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert one.dtype == torch.float32
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@given(SIZE, SIZE, TILT)
def test_cholesky(sx: float, sv: float, r: float) -> None:
    cov = cov2(sx, sv, r)
    got = [float(e) for e in GaussianPrior(entries(cov)).cholesky]
    low = np.linalg.cholesky(cov)
    np.testing.assert_allclose(got, [low[0, 0], low[1, 0], low[1, 1]], rtol=1e-11, atol=1e-13)


@given(st.tuples(SIZE, SIZE, TILT), st.tuples(SIZE, SIZE, TILT), st.tuples(st.floats(-9, 9), st.floats(-9, 9)))
def test_kl(law: tuple[float, ...], prior: tuple[float, ...], mean: tuple[float, float]) -> None:
    """Against the general formula for multivariate normals; zero only between equals."""
    p, q = cov2(*law), cov2(*prior)
    m = torch.tensor(mean, dtype=torch.float64)
    for k in (1, 2):
        want = kl_divergence(
            MultivariateNormal(m[:k], torch.tensor(p[:k, :k])),
            MultivariateNormal(torch.zeros(k).double(), torch.tensor(q[:k, :k])),
        )
        got = gaussian_kl(tuple(m[:k, None]), entries(p[:k, :k]), entries(q[:k, :k]))
        assert float(got) == pytest.approx(float(want), rel=1e-9, abs=1e-11)
    same = gaussian_kl((torch.zeros(1), torch.zeros(1)), entries(p), entries(p))
    assert float(same) == pytest.approx(0, abs=1e-12)


# --- mixtures of the statistic --------------------------------------------------------------------------------------

PAIRS = [("VSCLD", 2.0, "adaptive"), ("VSULD", 5.0, "steered"), ("SGM", 1.0, "zero"), ("VSDM", 2.0, "steered")]


def seen(method: str, beta: float, mode: str) -> tuple[ForwardProcess, torch.Tensor]:
    """A process that has seen two far clusters, stretched, and the data."""
    stream = torch.Generator().manual_seed(0)
    x = torch.randn(4_000, 2, generator=stream) + 3 * (2 * torch.randint(2, (4_000, 1), generator=stream) - 1)
    x = x * torch.tensor([1.0, 5.0]) + 7
    process = forward_process(method, (2,), beta=beta, variational_score=mode)
    return process.with_moments(x.mean(0), x.var(0)), x


def pushed(process: ForwardProcess, x: torch.Tensor, seed: int) -> torch.Tensor:
    """Exact draws of a_1 from data x: the oracle that the lifted statistic has to agree with."""
    kernel, stream = process.kernel(torch.ones(1)).map(lambda e: e[0]), torch.Generator().manual_seed(seed)
    chol = lower_cholesky(kernel)
    eps = torch.randn(2, *x.shape, generator=stream, dtype=torch.float64)
    start = process.to_directions(x.double())
    parts = [kernel.mean[0][0] * start + chol[0] * eps[0]]
    if process.k == 2:
        parts.append(kernel.mean[1][0] * start + chol[1] * eps[0] + chol[2] * eps[1])
    return torch.stack(parts, 1)


@pytest.mark.parametrize(("method", "beta", "mode"), PAIRS)
@pytest.mark.parametrize("name", ["mixture", "empirical"])
def test_mixture_priors_are_the_law_of_the_end(method: str, beta: float, mode: str, name: str) -> None:
    """Same covariance and same fourth moments along random directions as exact draws, the Gaussian prior's are not."""
    process, x = seen(method, beta, mode)
    prior = process.with_prior(name, x, components=6).prior_law()
    want = pushed(process, x.repeat(10, 1), 1).flatten(1)
    got = prior.sample(40_000, torch.Generator().manual_seed(2), torch.float64).flatten(1)
    scale = want.std(0)
    assert float(((torch.cov(got.T) - torch.cov(want.T)) / (scale[:, None] * scale)).abs().max()) < 0.05
    probes = (
        torch.randn(want.shape[1], 20, generator=torch.Generator().manual_seed(3), dtype=torch.float64) / scale[:, None]
    )
    kurtosis = [((z @ probes) / (z @ probes).std(0)).pow(4).mean(0) for z in (got, want)]
    assert float((kurtosis[0] - kurtosis[1]).abs().max()) < 0.25


@pytest.mark.parametrize(("method", "beta", "mode"), PAIRS)
@pytest.mark.parametrize("name", ["mixture", "empirical"])
def test_density_is_that_of_the_draws(method: str, beta: float, mode: str, name: str) -> None:
    """E_p[q/p] = 1 for the Gaussian q of its moments, and p is the more likely of the two in the mean."""
    process, x = seen(method, beta, mode)
    prior = process.with_prior(name, x[:300], components=4).prior_law()
    a = prior.sample(20_000, torch.Generator().manual_seed(1), torch.float64)
    flat = a.flatten(1)
    best = MultivariateNormal(flat.mean(0), torch.cov(flat.T))
    log_p = prior.log_prob(a)
    assert log_p.shape == (20_000,)
    assert float((log_p - best.log_prob(flat)).mean()) > -1e-3
    share = float((best.log_prob(flat) - log_p).exp().mean())
    assert share == pytest.approx(1, abs=0.35)


def test_density_on_a_grid() -> None:
    """k = 1, d = 1: the density integrates to one."""
    x = torch.cat([torch.full((50, 1), -2.0), torch.full((50, 1), 2.0)]) + torch.linspace(0, 0.1, 100)[:, None]
    process = forward_process("SGM", (1,), beta=1.0).with_moments(x.mean(0), x.var(0))
    grid = torch.linspace(-12, 12, 4_001, dtype=torch.float64)[:, None, None]
    for name in ("mixture", "empirical"):
        density = process.with_prior(name, x, components=3).prior_law().log_prob(grid).exp()
        assert float(torch.trapezoid(density, grid[:, 0, 0])) == pytest.approx(1, abs=1e-6)


def test_momentum_density_on_a_grid() -> None:
    x = torch.cat([torch.full((50, 1), -2.0), torch.full((50, 1), 2.0)]) + torch.linspace(0, 0.1, 100)[:, None]
    process = forward_process("VSULD", (1,), beta=2.0, variational_score="steered").with_moments(x.mean(0), x.var(0))
    axis = torch.linspace(-9, 9, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)[:, :, None]
    for name in ("mixture", "empirical"):
        density = process.with_prior(name, x, components=3).prior_law().log_prob(grid).exp().view(401, 401)
        assert float(torch.trapezoid(torch.trapezoid(density, axis), axis)) == pytest.approx(1, abs=1e-6)


def test_mixture_is_a_function_of_its_seed() -> None:
    process, x = seen(*PAIRS[1])
    one, two, other = (process.with_prior("mixture", x, components=5, seed=s).mixture for s in (0, 0, 1))
    assert one is not None
    assert two is not None
    assert other is not None
    assert torch.equal(one.means, two.means)
    assert not torch.equal(one.means, other.means)


def test_priors_that_need_data() -> None:
    process, x = seen(*PAIRS[0])
    with pytest.raises(ValueError, match=r"^prior='mixture': needs data \(n, 2\)$"):
        process.with_prior("mixture")
    with pytest.raises(ValueError, match=r"^components=20: must be at most the number of points, 10$"):
        process.with_prior("mixture", x[:10], components=20)
    with pytest.raises(ValueError, match=r"^prior='mixtures': must be one of"):
        process.with_prior("mixtures", x)
    unseen = forward_process("CLD", (2,), prior="empirical").with_moments(x.mean(0), x.var(0))
    with pytest.raises(ValueError, match=r"^prior='empirical': has not seen data"):
        unseen.prior_law()


def test_a_mixture_is_of_one_process_and_one_data_set() -> None:
    """Another A or other data have another law of the statistic: what was fitted to the old one must not be drawn."""
    process, x = seen("VSULD", 2.0, "adaptive")
    process = process.with_prior("mixture", x, components=2)
    process.prior_law()
    for other in (process.with_stiffness(2 * process.stiffness), process.with_data(3 * x)):
        assert other.prior == "mixture"
        with pytest.raises(ValueError, match=r"^prior='mixture': has not seen data"):
            other.prior_law()
