"""The recurrent network: Gaussian at the start, reads only the past, steps as it reads windows, gaps, bad context."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from repro.studies.recurrent import Recurrent
from vsmd import networks
from vsmd.random import generator

HORIZON, LAGS, DIM, FEATURES = 4, (1, 3), 3, 2


def trained(bf16: bool = False) -> Recurrent:
    settings = {"lags": LAGS, "horizon": HORIZON, "features": FEATURES, "hidden": 8, "channels": 4, "blocks": 2}
    net = networks.build("recurrent", shape=[DIM], bf16=bf16, **settings)
    with torch.no_grad():
        for number, p in enumerate(net.parameters()):
            p.copy_(0.3 * torch.randn(p.shape, generator=generator(0, "weights", number)))
    assert isinstance(net, Recurrent)
    return net


def context(windows: int = 2, steps: int = 3 + 6 + HORIZON) -> Tensor:
    return torch.randn(windows, steps, DIM + FEATURES, generator=generator(1, "context"))


def draws(rows: int = 2 * HORIZON) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, DIM, generator=generator(2)), torch.randn(rows, DIM, generator=generator(3))


def test_starts_at_the_exact_score_of_gaussian_data() -> None:
    net = Recurrent((DIM,), LAGS, HORIZON, FEATURES)
    assert torch.equal(net(*draws(), context()), torch.zeros(2 * HORIZON, DIM))


def test_a_row_sees_what_precedes_its_step_and_nothing_else() -> None:
    net, windows = trained(), context().requires_grad_()
    out = net(*draws(), windows)
    at = windows.shape[1] - HORIZON + 1  # the second step of the horizon
    (slope,) = torch.autograd.grad(out[HORIZON + 1].sum(), windows)
    assert bool((slope[0] == 0).all())  # the other window
    assert bool((slope[1, at:, :DIM] == 0).all())  # its own value, and later ones
    assert bool((slope[1, at - 1, :DIM] != 0).all())
    assert bool((slope[1, at, DIM:] != 0).all())  # the features of its step
    assert bool((slope[1, at + 1 :, DIM:] == 0).all())


def test_stepping_is_reading_the_window() -> None:
    net, windows = trained(), context()
    whole = net.encode(windows)
    inputs = net.inputs(windows)
    _, state = net.read(inputs[:, :-HORIZON])
    for step in range(HORIZON):
        h, state = net.read(inputs[:, step - HORIZON, None], state)
        assert torch.allclose(net.code(h[:, 0]), whole[step::HORIZON], atol=1e-6)


def test_codes_stand_for_the_context_and_rows_may_be_fewer() -> None:
    net, (z, level) = trained(), draws()
    whole = net(z, level, context())
    assert torch.allclose(net.on_codes()(z, level, net.encode(context())), whole, atol=1e-6)
    assert torch.allclose(net(z[:5], level[:5], context()), whole[:5], atol=1e-6)
    shared = net(z, level[:1], context())
    assert torch.allclose(shared, net(z, level[:1].expand_as(level), context()), atol=1e-6)


def test_nothing_is_learned_from_missing_values() -> None:
    net, (z, level), windows = trained(), draws(), context()
    windows[0, -2, 1] = torch.nan
    out = net(z, level, windows)
    assert bool(torch.isfinite(out).all())
    assert out[HORIZON - 2, 1] == 0.0
    assert (out == 0).sum() == 1
    (slope,) = torch.autograd.grad(out[HORIZON - 2, 1], net.last.weight)
    assert bool((slope == 0).all())


def test_bf16_is_near() -> None:
    with torch.no_grad():
        exact, half = (trained(bf16)(*draws(), context()) for bf16 in (False, True))
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().max() < 0.05 * exact.abs().max() + 0.02


@pytest.mark.parametrize("windows", [None, torch.zeros(2, 20, 4), torch.zeros(2, 3, 5), torch.zeros(20, 5)])
def test_wrong_context(windows: Tensor | None) -> None:
    with pytest.raises(ValueError, match=r"context=.*: must be a tensor of shape \(windows, more than 3, 5\)"):
        trained()(*draws(), windows)


def test_settings_rebuild_it() -> None:
    net = trained()
    again = networks.build(net.name, **net.settings)
    again.load_state_dict(net.state_dict())
    assert torch.equal(net(*draws(), context()), again(*draws(), context()))
