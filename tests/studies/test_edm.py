"""repro.studies.edm: the published preconditioning is our rotation, and the exact denoiser gives the exact law."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from repro.studies import edm
from vsmd.family import forward_process


class Zero(nn.Module):
    """The exact network of standard normal data: no residual."""

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.zeros_like(z)


def test_preconditioning_is_the_published_one() -> None:
    """D = c_skip x + c_out F(c_in x) with the paper's c's at sigma_data = 1/2, in units of sigma_data."""
    process = forward_process("SGM", (1,)).with_moments(torch.zeros(1), torch.full((1,), 0.25))
    shift = nn.Module()
    shift.forward = lambda z, level, context=None: z + level
    model = edm.EDM(shift, process, 0.5)
    x, sigma = torch.linspace(-3, 3, 7)[:, None], torch.tensor(0.8)
    c_skip, c_out = 0.25 / (sigma**2 + 0.25), 0.5 * sigma / (sigma**2 + 0.25).sqrt()
    c_in = 1 / (sigma**2 + 0.25).sqrt()
    published = c_skip * x + c_out * (c_in * x + (0.5 / sigma).log())
    torch.testing.assert_close(0.5 * model.denoised(x / 0.5, sigma / 0.5), published)


def test_the_published_grid() -> None:
    """18 steps: sigma from 80 to .002, then 0, evenly spaced in sigma^(1/7); 35 evaluations."""
    sigmas = edm.grid(18) * edm.DATA
    assert float(sigmas[0]) == pytest.approx(80, rel=1e-5)
    assert float(sigmas[-2]) == pytest.approx(0.002, rel=1e-4)
    assert float(sigmas[-1]) == 0
    roots = sigmas[:-1] ** (1 / 7)
    torch.testing.assert_close(roots.diff(), roots.diff()[:1].expand(17), rtol=1e-3, atol=0)
    assert edm.grid(6, high=5.0, power=3.0)[[0, -2]].tolist() == pytest.approx([10, 0.004], rel=1e-4)
    assert edm.steps_of(35) == 18
    assert [edm.steps_of(n) for n in (1, 5, 10, 20)] == [1, 3, 5, 10]


@pytest.mark.parametrize("method", ["edm", "edm-standardised", "edm-whitened"])
def test_gaussian_data_are_exact(method: str) -> None:
    """With the exact network 40 steps give the data's own moments within the draws' error (raw: of one deviation)."""
    data = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[1.0, 0.5], [0.0, 3.0]])
    basis = edm.SCALINGS[method]
    process = forward_process("SGM", (2,), basis=basis).with_data(data + 5)
    unit = process.known().unit if method != "edm" else float(process.known().var.mean().sqrt())
    x = edm.EDM(Zero(), process, unit).sample(20_000, 40, seed=0)
    torch.testing.assert_close(x.mean(0), data.mean(0) + 5, atol=0.1, rtol=0)
    want = torch.cov(data.T) if method == "edm-whitened" else torch.cov(data.T).diag().diag()
    if method == "edm":
        want = torch.eye(2) * want.diag().mean()
    torch.testing.assert_close(torch.cov(x.T), want, atol=0.15, rtol=0.05)


def test_pairs_have_the_published_levels() -> None:
    """log sigma ~ N(-1.2, 1.2^2) at sigma_data = 1/2, weight 1."""
    data = torch.randn(4_096, 2, generator=torch.Generator().manual_seed(0)) * 3
    trainer = edm.EDMTrainer(
        "edm-standardised", data, (2,), network=None, steps=1, batch_size=4_096, learning_rate=1e-3,
        schedule="cosine", ema=0.9, clip=1.0, seed=0, device=torch.device("cpu"),
    )  # fmt: skip
    pairs = trainer.pairs()
    log_sigma = -pairs.log_snr[:, 0] + torch.tensor(edm.DATA).log()
    assert float(log_sigma.mean()) == pytest.approx(-1.2, abs=0.01)
    assert float(log_sigma.std()) == pytest.approx(1.2, rel=0.02)
    assert torch.equal(pairs.weight, torch.ones_like(pairs.weight))
    with pytest.raises(ValueError, match="method='vp': must be one of"):
        edm.train("vp", data, (2,))


def test_training_finds_two_points() -> None:
    """Data at -1 and 1: after 400 steps most samples lie within .3 of either."""
    data = torch.randn(2_000, 1, generator=torch.Generator().manual_seed(0)).sign()
    x = edm.train("edm", data, (1,), steps=400, batch_size=256).sample(2_000, 10, seed=1)
    assert float(((x.abs() - 1).abs() < 0.3).float().mean()) > 0.9
