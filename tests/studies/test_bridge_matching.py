"""repro.studies.bridge_matching: the bridge of Gaussian data, known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from repro.studies import bridge_matching as bm

STD, SIGMA = 2.0, 1.0
ONE = (torch.zeros(1), torch.ones(1))


class Line(nn.Module):
    """A drift's network that is exact for Gaussian data: x times a polynomial of r."""

    def __init__(self, degree: int = 6) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(degree + 1))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        powers = torch.arange(len(self.weights))
        return x * ((2 * level.sigmoid() - 1) ** powers @ self.weights)[:, None]


def linear(dim: int, sigma: float) -> bm.Drift:
    return bm.Drift(dim, sigma, Line())


def gaussian(n: int, stream: torch.Generator) -> Tensor:
    return STD * torch.randn(n, 1, generator=stream)


def coupling() -> float:
    """E x_0 x_1 of the static bridge between N(0, s^2) and N(0, 1): (sqrt(4 s^2 + sigma^4) - sigma^2)/2."""
    return (math.sqrt(4 * STD**2 + SIGMA**4) - SIGMA**2) / 2


def energy() -> float:
    """1/2 int E b^2 / sigma^2 dt of b = E[x_1 - x_t | x_t]/(1 - t), by the moments of the Gaussian bridge."""
    t = torch.linspace(0, 1 - 1e-4, 4_001, dtype=torch.float64)
    c = coupling()
    var = (1 - t) ** 2 * STD**2 + t**2 + 2 * t * (1 - t) * c + t * (1 - t) * SIGMA**2
    gain = (((1 - t) * c + t) / var - 1) / (1 - t)
    return float(torch.trapezoid(0.5 * gain.square() * var / SIGMA**2, t))


def test_gaussian_data() -> None:
    """Coupling, control energy and both ends within some percent, by gradient steps on drifts that can be exact."""
    seen: list[int] = []
    bridge = bm.train(
        gaussian, ONE, sigma=SIGMA, steps=30, stages=10, inner=40, batch_size=512, paths=2_048, refresh=20,
        learning_rate=3e-2, ema=0.9, drift=linear, on_stage=lambda stage, *_: seen.append(stage),
    )  # fmt: skip
    assert seen == list(range(10))
    stream = torch.Generator().manual_seed(3)
    x = gaussian(20_000, stream)
    end = bm.path(bridge.ahead, x, 40, stream)[-1]
    assert float((x * end).mean()) == pytest.approx(coupling(), rel=0.1)  # of independent ends: 0
    assert float(end.std()) == pytest.approx(1.0, rel=0.07)
    assert float(bridge.sample(20_000, 0).std()) == pytest.approx(STD, rel=0.07)
    assert float(bridge.sample(20_000, 0, flow=True).std()) == pytest.approx(STD, rel=0.07)
    assert bridge.control_energy(x, 0) == pytest.approx(energy(), rel=0.1)


def test_another_grid_and_units() -> None:
    """Untrained drifts are Brownian motion; samples come back in the data's units, on whatever grid."""
    moments = (torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.5]))
    bridge = bm.train(
        lambda n, stream: torch.randn(n, 2, generator=stream), moments, steps=5, stages=1, inner=1, batch_size=8,
        paths=16,
    )  # fmt: skip
    path = bridge.on(3).sample(4_000, 0, trajectory=True)
    assert path.shape == (4, 4_000, 2)
    torch.testing.assert_close((path[0] - moments[0]).std(0), moments[1], rtol=0.05, atol=0)
    again = bridge.sample(10, 1)
    assert torch.equal(again, bridge.on(5).sample(10, 1))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"^sigma=0"):
        bm.train(gaussian, ONE, sigma=0)
    with pytest.raises(ValueError, match=r"^steps=0"):
        bm.train(gaussian, ONE, steps=0)
    with pytest.raises(ValueError, match=r"^stages=0"):
        bm.train(gaussian, ONE, stages=0)
    with pytest.raises(FloatingPointError, match=r"^stage 0: policies are not finite"):
        bm.train(gaussian, ONE, stages=1, inner=3, batch_size=8, paths=16, learning_rate=1e38)
