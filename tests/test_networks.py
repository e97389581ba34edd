"""vsmd.networks: built by name, starting at the Gaussian score, one shape in and out."""

from __future__ import annotations

import json

import pytest
import torch

from vsmd.networks import NETWORKS, build
from vsmd.networks.mlp import MLP


def random_mlp(shape: tuple[int, ...] = (2,)) -> MLP:
    """An MLP whose output depends on its inputs (a fresh one is zero)."""
    torch.manual_seed(0)
    network = MLP(shape, width=16, depth=3, frequencies=4)
    torch.nn.init.normal_(network.last.weight)
    return network


def test_starts_at_zero() -> None:
    """A zero network is the exact score of Gaussian data."""
    network = MLP((3,))
    assert torch.equal(network(torch.randn(4, 3), torch.randn(4, 3)), torch.zeros(4, 3))


@pytest.mark.parametrize("shape", [(1,), (2,), (3, 2), (1, 4, 4)])
def test_shapes(shape: tuple[int, ...]) -> None:
    network = random_mlp(shape)
    assert network(torch.randn(5, *shape), torch.randn(5, *shape)).shape == (5, *shape)


def test_shared_level_is_the_same_level_in_every_row() -> None:
    network = random_mlp()
    z, level = torch.randn(6, 2), torch.randn(1, 2)
    torch.testing.assert_close(network(z, level), network(z, level.expand(6, 2)), rtol=1e-5, atol=1e-6)


def test_rows_are_independent_and_levels_matter() -> None:
    network = random_mlp()
    z, level = torch.randn(6, 2), torch.randn(6, 2)
    network.requires_grad_(False)
    out = network(z, level)
    torch.testing.assert_close(network(z[2:3], level[2:3]), out[2:3], rtol=1e-5, atol=1e-6)
    assert float((network(z, level + 1) - out).abs().min()) > 0
    assert float((network(z + 1, level) - out).abs().min()) > 0


@pytest.mark.parametrize("level", [-27.6, 30.0])
def test_extreme_levels(level: float) -> None:
    """snr is floored at 1e-12, and is huge near the data: output and gradients stay finite."""
    network = random_mlp()
    out = network(torch.randn(3, 2), torch.full((3, 2), level))
    out.sum().backward()
    assert bool(torch.isfinite(out).all())
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in network.parameters())


def test_built_again_from_json_settings() -> None:
    """What a model file stores is enough: name, settings, weights."""
    network = random_mlp((2, 3))
    again = build(network.name, **json.loads(json.dumps(network.settings)))
    again.load_state_dict(network.state_dict())
    z, level = torch.randn(4, 2, 3), torch.randn(4, 2, 3)
    assert torch.equal(again(z, level), network(z, level))


def test_unknown_network() -> None:
    assert "mlp" in NETWORKS
    with pytest.raises(ValueError, match=r"^network='mpl': must be one of .*\(did you mean 'mlp'\?\)$"):
        build("mpl")
