"""vsmd.priors: drawn and scored like the normal law they are, and the KL divergence between two of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal, kl_divergence

from vsmd.priors import GaussianPrior, gaussian_kl

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
