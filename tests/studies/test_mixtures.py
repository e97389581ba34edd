"""repro.studies.mixtures: the exact network against autograd, and the shares and gaps that follow from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from repro.studies import mixtures as mx
from repro.studies.convergence import Row
from repro.studies.derivations import as_array
from vsmd.random import generator
from vsmd.scores import Score


def picked(rows: list[Row], quantity: str) -> list[Row]:
    return [r for r in rows if r["quantity"] == quantity]


@pytest.mark.parametrize("a_mode", ["zero", "adapted", "steered"])
@pytest.mark.parametrize("t", [0.03, 0.4, 1.0])
def test_network_is_the_exact_score(a_mode: str, t: float) -> None:
    """Against the gradient of log sum_j w_j N(a; F mu_j, F diag(C_j, 1) F' + N), by autograd."""
    mixture = mx.stretched_ring(4.0)
    process = mx.process_of(a_mode, mixture.var, 5.0)
    time = torch.tensor([t], dtype=torch.float64)
    kernel = process.kernel(time)
    f = torch.from_numpy(as_array(kernel.mean))[0]  # (d, 2, 2)
    means = torch.einsum("di,jd->jdi", f[..., 0], mixture.means)
    laws = [torch.from_numpy(as_array(process.covariance(kernel, v)))[0] for v in mixture.variances]

    def log_density(a: Tensor) -> Tensor:
        terms = []
        for w, m, law in zip(mixture.weights, means, laws):
            r = a.movedim(1, 2) - m
            terms.append(w.log() - 0.5 * (torch.einsum("ndi,dij,ndj->n", r, law.inverse(), r) + law.logdet().sum()))
        return torch.stack(terms).logsumexp(0)

    x = mixture.sample(50, generator(0, "x")).double()
    v = torch.randn(50, 2, generator=generator(0, "v"), dtype=torch.float64)
    a = (torch.stack([x, v], 1).movedim(1, 2)[..., None, :] * f).sum(-1).movedim(2, 1).requires_grad_()
    (want,) = torch.autograd.grad(log_density(a).sum(), a)
    got = Score(process, mixture)(a.detach(), process.coefficients(time, dtype=torch.float64).at(0))
    np.testing.assert_allclose(got.numpy(), want[:, 1].numpy(), rtol=1e-6, atol=1e-8)


def test_sample_has_the_mixture_s_moments() -> None:
    mixture = mx.stretched_ring(8.0)
    x = mixture.sample(100_000, generator(0, "x"))
    np.testing.assert_allclose(x.var(0), mixture.var, rtol=0.02)
    assert float(x.mean(0).abs().max()) < 0.1
    assert mx.two_bumps(3.0, 8.0).var.sqrt().item() == pytest.approx(8.0)


def test_linear_share() -> None:
    """1 for Gaussian data, less for every further separation; the residual's square against sampling."""
    totals = []
    for separation in (0.0, 1.0, 4.0):
        rows = mx.linear_share("zero", 5.0, separation, 8.0)
        totals.append(picked(rows, "linear_share_total")[0]["y"])
        shares = [r["y"] for r in picked(rows, "linear_share")]
        assert 0 < min(shares) <= max(shares) <= 1
    assert totals[0] == 1
    assert totals[1] > totals[2]
    assert totals[2] > 0.5
    mixture = mx.two_bumps(4.0, 8.0)
    process = mx.process_of("zero", mixture.var, 5.0)
    row = picked(rows, "linear_share")[6]
    t = torch.tensor([row["x"]], dtype=torch.float64)
    at, (f, n) = process.coefficients(t, dtype=torch.float64).at(0), map(as_array, process.kernel(t))
    start = torch.stack([mixture.sample(200_000, generator(1, "x")).double()[:, 0], torch.randn(
        200_000, generator=generator(1, "v"), dtype=torch.float64)], 1).numpy()  # fmt: skip
    noise = np.random.default_rng(0).standard_normal(start.shape)
    a = torch.from_numpy(start @ f[0, 0].T + noise @ np.linalg.cholesky(n[0, 0]).T)[..., None]
    score = Score(process, mixture)(a, at)
    rest = at.out * Score(process, mixture).residual(a, at)
    assert float(1 - (rest**2).mean() / (score**2).mean()) == pytest.approx(row["y"], abs=0.01)


def test_gap_bounds_the_end() -> None:
    """Data processing, with equality of exponents near the optimum: KL ~ gap, W2 ~ its root."""
    rows = mx.gap(4.0, 5.0, [5, 20], 60)
    for row in picked(rows, "gap_end"):
        assert row["y"] < row["x"]
        assert row["fitted"] == pytest.approx(1, abs=0.1)
    for row in picked(rows, "gap_w2"):
        assert row["fitted"] == pytest.approx(0.5, abs=0.05)
    exact, coarse, finer = (picked(rows, f"gap_w2{n}")[6]["y"] for n in ("", "_heun_10", "_heun_40"))
    assert exact < finer < coarse  # few steps hide what the gap costs


def test_quality() -> None:
    worse, real = (mx.quality([a], [5.0], "heun", [20], 2_000, 0).tables["rates"][0] for a in ("zero", "real"))
    best = mx.quality(["steered"], [5.0], "heun", [40], 2_000, 0).tables["rates"][0]
    assert worse["y"] > 2 * best["y"] > real["y"]
    assert worse["fitted"] > 1
    assert best["fitted"] == 0


def test_policies_is_both() -> None:
    rows = mx.policies(["zero", "steered"], [5.0, 2.0], [0.0, 2.0], 4.0, [10]).tables["rates"]
    assert {r["setting"] for r in rows if r["quantity"] == "linear_rest"} == {
        "zero, beta 5, std 4", "steered, beta 2, std 4",
    }  # fmt: skip
    assert picked(rows, "gap_w2_heun_20")
