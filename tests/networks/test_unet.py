"""The U-Net: where it starts, what it takes and what it runs under."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vsmd import networks
from vsmd.networks.unet import UNet
from vsmd.random import generator

SHAPE = (3, 8, 12)


def tiny(trained: bool = True, **changed: Any) -> UNet:
    """A small network; trained: with random last maps, as training would leave them."""
    settings: dict[str, Any] = {"width": 8, "multipliers": (1, 2), "depth": 1, "attention": (4,)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = UNet(SHAPE, **(settings | changed))
        if trained:
            for p in net.parameters():
                if not bool(p.any()):
                    torch.nn.init.normal_(p, std=0.1)
    return net


def images(n: int = 3, label: str = "image") -> Tensor:
    """Noisy images and, as further channels, their pixels' relative levels."""
    channels, *sides = SHAPE
    return torch.randn(n, 2 * channels, *sides, generator=generator(0, "unet", label))


def levels(n: int = 3) -> Tensor:
    return torch.linspace(-2, 2, n)


@pytest.mark.parametrize("changed", [{}, {"patch": 2, "attention": (2,)}, {"multipliers": (1,), "depth": 2}])
def test_starts_at_zero(changed: dict[str, Any]) -> None:
    """Zero is the exact score of Gaussian data, whatever the levels."""
    out = tiny(trained=False, **changed)(images(), levels())
    assert out.shape == (3, *SHAPE)
    assert not bool(out.any())
    assert bool(tiny(**changed)(images(), levels()).any())


def test_without_levels_of_pixels() -> None:
    net = tiny(levels=False)
    assert net(images()[:, :3], levels()).shape == (3, *SHAPE)
    assert not net.levels


def test_one_level_serves_all_images() -> None:
    net = tiny()
    torch.testing.assert_close(net(images(), levels(1)), net(images(), levels(1).expand(3)), rtol=1e-4, atol=1e-5)


def test_all_parameters_learn() -> None:
    net = tiny(classes=4)
    net(images(), levels(), torch.tensor([0, 1, 3])).square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


def test_labels() -> None:
    net, z, level = tiny(classes=4), images(), levels()
    first = net(z, level, torch.tensor([0, 1, 2]))
    assert not torch.allclose(first, net(z, level, torch.tensor([3, 1, 2])))
    torch.testing.assert_close(first[1:], net(z[1:], level[1:], torch.tensor([1, 2])), rtol=1e-4, atol=1e-5)
    for bad in (None, torch.tensor([0, 1]), torch.tensor([0.0, 1.0, 2.0])):
        with pytest.raises(ValueError, match=r"must be labels, int64 \(3,\)"):
            net(z, level, bad)


def test_size_at_the_papers_settings() -> None:
    assert sum(p.numel() for p in UNet((3, 32, 32)).parameters()) == pytest.approx(57.0e6, rel=0.01)


@pytest.mark.parametrize("changed", [{"patch": 3}, {"multipliers": (1, 1, 1, 1)}, {"width": 0}])
def test_sizes_that_do_not_divide(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"shape=.*must be|width=0: must be"):
        tiny(**changed)


def test_built_again_from_its_settings() -> None:
    net = tiny(classes=2, patch=2)
    made = networks.describe(net)
    again = networks.build(made["name"], **made["settings"])
    again.load_state_dict(net.state_dict())
    label = torch.tensor([0, 1, 1])
    assert torch.equal(again(images(), levels(), label), net(images(), levels(), label))


def test_autocast_and_channels_last() -> None:
    net, z, level = tiny().requires_grad_(False), images(), levels()
    want = net(z, level)
    with torch.autocast("cpu", torch.bfloat16):
        half = net(z, level)
    assert float((half - want).norm() / want.norm()) < 0.05
    last = net.to(memory_format=torch.channels_last)(z.contiguous(memory_format=torch.channels_last), level)
    torch.testing.assert_close(last, want, rtol=1e-3, atol=1e-4)


def test_compiles_as_one_graph() -> None:
    net = tiny(classes=2)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    label = torch.tensor([0, 1, 1])
    torch.testing.assert_close(
        compiled(images(), levels(), label), net(images(), levels(), label), rtol=1e-4, atol=1e-5
    )
