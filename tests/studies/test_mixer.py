"""The coordinate mixer: starts at zero, rows independent, levels of its own, and it finds who depends on whom."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from repro.studies.mixer import Mixer
from vsmd import networks
from vsmd.random import generator


def random_mixer(shape: tuple[int, ...] = (5,)) -> Mixer:
    net = networks.build("mixer", shape=list(shape), width=6, depth=2, frequencies=3)
    with torch.no_grad():
        for number, p in enumerate(net.parameters()):
            p.copy_(0.3 * torch.randn(p.shape, generator=generator(0, "weights", number)))
    assert isinstance(net, Mixer)
    return net.requires_grad_(False)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "draws"))


def test_starts_at_the_exact_score_of_gaussian_data() -> None:
    assert torch.equal(Mixer((3,))(draws(4, 3), draws(4, 3, seed=1)), torch.zeros(4, 3))


@pytest.mark.parametrize("shape", [(1,), (3, 2), (1, 2, 2)])
def test_shapes_and_order_of_coordinates(shape: tuple[int, ...]) -> None:
    net, flat = random_mixer(shape), random_mixer((torch.Size(shape).numel(),))
    z, level = draws(5, *shape), draws(5, *shape, seed=1)
    assert net(z, level).shape == (5, *shape)
    torch.testing.assert_close(net(z, level).flatten(1), flat(z.flatten(1), level.flatten(1)))


def test_rows_are_independent_and_levels_shared_or_not() -> None:
    net, z, level = random_mixer(), draws(6, 5), draws(6, 5, seed=1)
    out = net(z, level)
    torch.testing.assert_close(net(z[2:3], level[2:3]), out[2:3])
    torch.testing.assert_close(net(z, level[:1]), net(z, level[:1].expand(6, 5)))


def test_every_coordinate_sees_every_other_and_its_level() -> None:
    net, z, level = random_mixer(), draws(1, 5), draws(1, 5, seed=1)
    seen = torch.autograd.functional.jacobian(lambda u, v: net(u, v), (z, level))
    for part in seen:
        assert part[0, :, 0].shape == (5, 5)
        assert bool((part[0, :, 0] != 0).all())


def test_before_mixing_is_learnt_coordinates_are_apart() -> None:
    net, z, level = random_mixer(), draws(1, 5), draws(1, 5, seed=1)
    for mix in net.mixes:
        mix.zero_()
    alone = torch.autograd.functional.jacobian(lambda u: net(u, level), z)[0, :, 0]
    assert torch.equal(alone, alone.diagonal().diag())


def test_extreme_levels_stay_finite() -> None:
    net = random_mixer().requires_grad_()
    out = net(draws(3, 5), torch.tensor([-27.6, 0.0, 30.0])[:, None].expand(3, 5))
    out.sum().backward()
    assert bool(torch.isfinite(out).all())
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in net.parameters())


def test_built_again_from_json_settings() -> None:
    net = random_mixer((2, 3))
    again = networks.build(net.name, **json.loads(json.dumps(net.settings)))
    again.requires_grad_(False).load_state_dict(net.state_dict())
    z, level = draws(4, 2, 3), draws(1, 2, 3, seed=1)
    assert torch.equal(again(z, level), net(z, level))


@pytest.mark.parametrize("wrong", [{"width": 0}, {"depth": 1.5}, {"expand": -1}, {"frequencies": 0}, {"shape": (0,)}])
def test_bad_sizes(wrong: dict[str, object]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=rf"^{name}=.*: must be an integer >= 1"):
        Mixer(**({"shape": (2,)} | wrong))  # type: ignore[arg-type]


def test_finds_the_pair_among_noise() -> None:
    """y_0 = z_0 z_5 of 12 coordinates: the mixing weight that joins them grows, the others' stay small."""
    torch.manual_seed(0)
    net = Mixer((12,), width=8, depth=1)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    level, first = torch.zeros(1, 12), torch.zeros(12)
    first[0] = 1.0
    for step in range(250):
        z = draws(128, 12, seed=step)
        loss = (net(z, level) - z[:, [0]] * z[:, [5]] * first).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weights = net.mixes[0].detach()[0].abs()
    assert weights.argmax() == 5
    assert float(loss.detach()) < 0.5 / 12
