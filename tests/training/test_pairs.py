"""vsmd.training.pairs: hybrid pairs are a rotation, plain ones have the same minimiser, one loss for both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mixtures1d import MEANS, POSTERIOR, STD, VARIANCES, WEIGHTS, Zero, at, process_for

import vsmd
from vsmd.family import forward_process
from vsmd.scores import preconditioned
from vsmd.training.pairs import Pairs, hybrid_pairs, loss, pairs_at, plain_pairs


def test_hybrid_pairs() -> None:
    """z = (snr xi + n)/sqrt(1 + snr^2), target its orthogonal partner: a rotation of (xi, n)."""
    rng = torch.Generator().manual_seed(0)
    xi, n = torch.randn(2, 100, 3, generator=rng, dtype=torch.float64)
    snr = torch.logspace(-3, 3, 100, dtype=torch.float64)[:, None].expand(100, 3)
    z, _, target, weight, context = hybrid_pairs(xi, snr, 0.5 * snr, n)
    assert torch.equal(weight, 0.25 * snr**2)
    assert context is None
    torch.testing.assert_close(z**2 + target**2, xi**2 + n**2, rtol=1e-12, atol=0)
    torch.testing.assert_close((snr * z + target) / (1 + snr**2).sqrt(), xi, rtol=1e-9, atol=1e-9)
    zero = torch.zeros_like(snr)
    assert torch.equal(hybrid_pairs(xi, zero, zero, n).z, n)


TESTS = (lambda z: torch.ones_like(z), lambda z: z, torch.tanh, lambda z: torch.cos(2 * z), lambda z: z.abs())


@pytest.mark.parametrize("method", ["CLD", "VSULD", "SGM"])
@pytest.mark.parametrize("t", [1e-3, 0.1, 0.6])
def test_plain_score_matching_has_the_same_minimiser(method: str, t: float) -> None:
    """E[(target - E[target | z]) phi(z)] = 0 for the pairs of plain score matching, within five standard errors."""
    process = process_for(method, matching="plain")
    n, rng = 100_000, torch.Generator().manual_seed(0)
    i = torch.where(torch.rand(n, generator=rng) < WEIGHTS[0], 0, 1)
    x = MEANS[i] + VARIANCES[i].sqrt() * torch.randn(n, generator=rng, dtype=torch.float64)
    times = torch.full((n,), t, dtype=torch.float64)
    z, log_snr, target, weight, _ = plain_pairs(process, x[:, None], times, rng)
    torch.testing.assert_close(log_snr, at(process, t).log_snr.float().expand(n, 1))
    torch.testing.assert_close(weight, at(process, t).kappa.float().square().expand(n, 1))
    assert z.shape == target.shape == (n, 1)
    rest = (target.double() - POSTERIOR(z, at(process, t).log_snr))[:, 0]
    for phi in TESTS:
        product = rest * phi(z[:, 0].double())
        assert abs(float(product.mean())) < 5 * float(product.std()) / n**0.5
    # it sees a_t as the hybrid pairs do, and pays for the drawn v_0 with variance
    snr = at(process, t).log_snr.exp().expand(n, 1)
    noise = torch.randn(n, 1, generator=rng, dtype=torch.float64)
    z_hybrid, _, target_hybrid, *_ = hybrid_pairs(x[:, None] / STD, snr, snr, noise)
    for power in (1, 2, 3, 4):
        one, two = z.double() ** power, z_hybrid**power
        assert abs(float(one.mean() - two.mean())) < 5 * float((one.var() + two.var()) / n) ** 0.5
    if process.k == 2:
        assert float(target.var()) > 1.05 * float(target_hybrid.var())
    else:
        assert float(target.var()) == pytest.approx(float(target_hybrid.var()), rel=0.05)


def test_plain_pair_of_a_constant_coordinate() -> None:
    process = forward_process("CLD", (2,), score_matching="plain").with_moments(
        torch.zeros(2), torch.tensor([1.0, 0.0])
    )
    x = torch.tensor([[0.5, 0.0], [-1.0, 0.0]])
    z, _, target, *_ = plain_pairs(process, x, torch.tensor([1e-3, 0.5]), torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(z).all())
    assert torch.equal(target[:, 1], torch.zeros(2))


@pytest.mark.parametrize("method", ["CLD", "SGM"])
def test_the_loss_of_known_networks(method: str) -> None:
    """Of a zero network kappa^2 in the mean, of the exact one less, and least of all of the three."""
    process, n, rng = process_for(method), 50_000, torch.Generator().manual_seed(0)
    i = torch.where(torch.rand(n, generator=rng) < WEIGHTS[0], 0, 1)
    x = (MEANS[i] + VARIANCES[i].sqrt() * torch.randn(n, generator=rng, dtype=torch.float64))[:, None]
    pairs = pairs_at(process, x, torch.linspace(1e-3, 1, n, dtype=torch.float64), rng)
    zero, exact = (float(loss(network, process.basis, pairs)) for network in (Zero(), POSTERIOR))
    assert zero == pytest.approx(float(pairs.weight.mean()), rel=0.02)
    assert exact < 0.9 * zero
    half = torch.nn.Module()
    half.forward = lambda z, level, context: 0.5 * POSTERIOR(z, level)
    assert exact < float(loss(half, process.basis, pairs)) < zero


def test_rows_of_pairs() -> None:
    whole = Pairs(*torch.arange(20.0).view(5, 4, 1).unbind(1), torch.arange(5))  # type: ignore[call-arg]
    some = whole.map(lambda v: v[1:3])
    assert some.context is not None
    assert some.context.tolist() == [1, 2]
    assert some.z[:, 0].tolist() == [4, 8]
    assert Pairs(*whole[:4], None).map(lambda v: v[:1]).context is None


@pytest.mark.parametrize("basis", ["coordinates", "principal"])
def test_weightings(basis: str) -> None:
    """kappa^2; 1; and the square of a backbone's gain taken out again: then the loss is that of the bare output."""
    rng, shape = torch.Generator().manual_seed(0), (1, 4, 4)
    x = torch.randn(64, *shape, generator=rng) * torch.logspace(-1, 1, 16).view(shape)
    process = forward_process("CLD", shape, basis=basis).with_data(x)
    t, network = torch.linspace(1e-3, 1, 64, dtype=torch.float64), Plain()
    by_name = {
        name: pairs_at(process, x, t, torch.Generator().manual_seed(1), weighting=name)
        for name in ("score", "unit", "backbone")
    }
    score, unit, backbone = by_name.values()
    assert torch.equal(score.z, backbone.z)
    torch.testing.assert_close(score.weight, process.snr(t)[1].float().square().expand_as(score.weight))
    assert torch.equal(unit.weight, torch.ones_like(unit.weight))
    zero = preconditioned(Plain(0.0), process.basis, backbone.z, backbone.log_snr, None)
    one = preconditioned(network, process.basis, backbone.z, backbone.log_snr, None)
    assert float((backbone.weight * (one - zero).square()).mean()) == pytest.approx(1, rel=1e-4)  # U = 1 everywhere


class Plain(torch.nn.Module):
    """A backbone whose answer is one number in every pixel."""

    backbone = True

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.value = value

    def forward(self, image: torch.Tensor, level: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        return torch.full_like(image, self.value)


def test_the_weighting_is_checked() -> None:
    process = forward_process("CLD", (2,))
    data = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="weighting='snr': must be one of 'score', 'unit', 'backbone'"):
        vsmd.fit(process, data, steps=1, weighting="snr")
    with pytest.raises(ValueError, match="weighting='backbone': MLP is no backbone of images; use 'unit'"):
        vsmd.fit(process, data, steps=1, weighting="backbone")


def test_a_weighting_changes_the_training_and_the_checkpoint_knows_it(tmp_path: Path) -> None:
    process = forward_process("CLD", (2,))
    data = torch.randn(256, 2, generator=torch.Generator().manual_seed(0)).sign()
    file = tmp_path / "run.safetensors"
    unit = vsmd.fit(process, data, steps=3, batch_size=64, weighting="unit", checkpoint=file)
    score = vsmd.fit(process, data, steps=3, batch_size=64)
    weights = [torch.cat([p.flatten() for p in model.network.parameters()]) for model in (unit, score)]
    assert not torch.equal(*weights)
    with pytest.raises(ValueError, match="weighting"):
        vsmd.fit(process, data, steps=3, batch_size=64, checkpoint=file)
