"""The conditional network: Gaussian at the start, context encoded once, bad context."""

from __future__ import annotations

import pytest
import torch

from vsmd import networks
from vsmd.networks.conditional import ConditionalMLP
from vsmd.networks.mlp import MLP
from vsmd.random import first_weights, generator


def trained(features: int = 4) -> ConditionalMLP:
    net = networks.build("conditional", shape=[3], features=features, width=16, depth=2)
    with torch.no_grad():
        for number, p in enumerate(net.parameters()):
            p.copy_(0.3 * torch.randn(p.shape, generator=generator(0, "weights", number)))
    assert isinstance(net, ConditionalMLP)
    return net


def test_starts_at_the_exact_score_of_gaussian_data() -> None:
    net = ConditionalMLP((3,), features=4)
    assert bool((net(torch.randn(5, 3), torch.zeros(1, 3), torch.randn(5, 4)) == 0).all())


def test_codes_stand_for_the_context() -> None:
    net, stream = trained(), generator(1, "inputs")
    z, context = torch.randn(6, 3, generator=stream), torch.randn(2, 4, generator=stream)
    level = torch.full((1, 3), 0.3)
    whole = net(z, level, context.repeat_interleave(3, 0))
    codes = net.encode(context)
    assert codes is not None
    assert codes.shape == (2, 32)
    assert torch.allclose(net.on_codes()(z, level, codes.repeat_interleave(3, 0)), whole, atol=1e-6)
    shared = net.on_codes()(z, level, codes[:1])
    assert torch.allclose(shared, net(z, level, context[:1].expand(6, 4)), atol=1e-6)
    assert not torch.allclose(whole[:3], net(z, level, context[1:].expand(6, 4))[:3], atol=1e-2)


def test_without_features_the_context_is_none() -> None:
    net = trained(features=0)
    z, level = torch.randn(4, 3, generator=generator(2)), torch.zeros(4, 3)
    assert net.encode(None) is None
    assert torch.equal(net(z, level), net.on_codes()(z, level, None))


def test_without_features_it_is_the_mlp() -> None:
    """The same first weights from the same seed, the same names in files, the same values."""
    nets = []
    for build in (MLP, ConditionalMLP):
        with first_weights(generator(5)):
            nets.append(build((3,), width=16, depth=3))
    plain, conditional = (net.state_dict() for net in nets)
    names = ("level", "shifts", "first", "hidden.0", "hidden.1", "last")
    assert list(plain) == list(conditional) == [f"{n}.{part}" for n in names for part in ("weight", "bias")]
    assert all(torch.equal(plain[name], conditional[name]) for name in plain)
    for net in nets:
        torch.nn.init.ones_(net.last.weight)
    z, level = torch.randn(4, 3, generator=generator(2)), torch.randn(4, 3, generator=generator(3))
    assert torch.equal(nets[0](z, level), nets[1](z, level))
    assert bool((nets[0](z, level) != 0).all())


@pytest.mark.parametrize("context", [None, torch.zeros(4, 5), torch.zeros(4)])
def test_wrong_context(context: torch.Tensor | None) -> None:
    with pytest.raises(ValueError, match=r"context=.*: must be a tensor of shape \(n, 4\)"):
        trained()(torch.zeros(4, 3), torch.zeros(1, 3), context)


def test_settings_rebuild_it() -> None:
    net = trained()
    again = networks.build(net.name, **net.settings)
    again.load_state_dict(net.state_dict())
    z, context = torch.randn(4, 3, generator=generator(3)), torch.randn(4, 4, generator=generator(4))
    assert torch.equal(net(z, torch.zeros(1, 3), context), again(z, torch.zeros(1, 3), context))


def test_settings_of_other_types() -> None:
    assert isinstance(networks.build("conditional", shape=(2,), bf16=1).bf16, bool)
    with pytest.raises(ValueError, match=r"^frequencies=None: must be an integer >= 0$"):
        networks.build("conditional", shape=(2,), frequencies=None)
