"""The paper's representation: scales with gaps, windows inside their series, and steps that say what windows say."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from repro.studies.recurrent import Recurrent
from repro.studies.windows import LEAST, NO_CONTEXT, Windows, WindowState
from vsmd.forecasting.series import Series, position_of
from vsmd.random import generator

WINDOWS = Windows(context_length=5, horizon=3, lags_seq=(1, 2), freq="D")


def series(values: Tensor) -> Series:
    dynamic = torch.arange(float(len(values) + 10))[:, None]
    return Series(values, position_of("2024-01-01", "D"), dynamic, torch.zeros(0))


def walk(steps: int, dim: int = 2, seed: int = 0) -> Tensor:
    return 50 + torch.randn(steps, dim, generator=generator(seed, "walk"), dtype=torch.float64).cumsum(0)


def network(windows: Windows, dim: int = 2) -> Recurrent:
    net = Recurrent((dim,), windows.lags_seq, windows.horizon, windows.features(1), hidden=8, blocks=2, channels=4)
    with torch.no_grad():
        for number, p in enumerate(net.parameters()):
            p.copy_(0.3 * torch.randn(p.shape, generator=generator(0, "weights", number)))
    return net.requires_grad_(False)


def test_scales_leave_gaps_out() -> None:
    windows = WINDOWS.fitted([series(walk(40))])
    values = torch.tensor([[[1.0, math.nan], [-3.0, 2.0], [math.nan, 4.0]]], dtype=torch.float64)
    middle, scale = windows.scales(values)
    assert middle.flatten().tolist() == [-1.0, 3.0]
    assert scale.flatten().tolist() == [2.0, 1.0]
    middle, scale = replace(windows, scaling="mean").scales(values)
    assert middle.flatten().tolist() == [0.0, 0.0]
    assert scale.flatten().tolist() == [2.0, 3.0]


def test_scales_have_a_least_value() -> None:
    values = walk(40)
    windows = WINDOWS.fitted([series(values)])
    spread = (values - values.mean(0)).square().mean(0).sqrt()
    assert torch.allclose(windows.scales(torch.ones(1, 5, 2, dtype=torch.float64))[1][0, 0], LEAST * spread)


def test_time_features_of_gluonts() -> None:
    known = WINDOWS.known(series(walk(8)), 2)
    assert known.shape == (10, WINDOWS.features(1))
    assert known[:, 0].tolist() == pytest.approx([(day % 7) / 6 - 0.5 for day in range(10)])  # 2024-01-01: a Monday
    assert known[:, -1].tolist() == list(range(10))


def test_windows_lie_within_their_series() -> None:
    """Two series far apart in level: every window has one of them, its rows are x, its steps follow each other."""
    parts = [series(walk(20)), series(walk(14, seed=1) + 1e6)]
    windows = WINDOWS.fitted(parts)
    drawn = windows.sampler(parts)(50, generator(0))
    assert isinstance(drawn, tuple)
    x, context = drawn
    assert x.shape == (50, 2)
    assert context.shape == (17, 7 + 3, 2 + windows.features(1))
    assert torch.equal(context[:, -3:, :2].flatten(0, 1)[:50], x)
    assert x.abs().max() < 1e3
    assert bool((context[..., -1].diff(dim=1) == 1).all())
    steps = set(context[:, 0, -1].tolist())
    assert steps <= set(range(11))
    assert isinstance(windows.sampler(parts)(NO_CONTEXT, generator(0)), Tensor)


def test_gaps_are_nan_in_the_context_and_carried_in_x() -> None:
    values = walk(10)
    values[8, 1] = torch.nan
    windows = WINDOWS.fitted([series(values)])
    drawn = windows.sampler([series(values)])(3, generator(0))
    assert isinstance(drawn, tuple)
    x, context = drawn
    assert context[0, -2, :2].isnan().tolist() == [False, True]
    assert x[1, 1] == x[0, 1]
    out = network(windows)(torch.zeros(3, 2), torch.zeros(3, 2), context)
    assert (out == 0).nonzero().tolist() == [[1, 1]]


@pytest.mark.parametrize("lags", [(1, 2), (2, 4)])
def test_state_continues_the_window(lags: tuple[int, ...]) -> None:
    """Feeding true values back gives the codes that the network has for the window, and the values again."""
    values = walk(12)
    values[4, 0] = torch.nan
    windows = replace(WINDOWS, lags_seq=lags).fitted([series(values)])
    steps = windows.history + windows.horizon
    part = series(values).last(steps)
    net = network(windows)
    drawn = windows.sampler([part])(3, generator(0))
    assert isinstance(drawn, tuple)
    x, context = drawn
    codes = net.encode(context)
    past = replace(part, values=part.values[: windows.history])
    state = WindowState(windows, [past, past], net, windows.horizon, torch.device("cpu"))
    for step in range(windows.horizon):
        following = state.codes(4)
        assert torch.allclose(following, codes[step].expand(8, -1), atol=1e-6)
        appended = state.advance(x[step].expand(2, 4, 2))
        assert torch.allclose(appended, values[step - windows.horizon].expand(2, 4, 2))


def test_files_are_complete() -> None:
    windows = replace(WINDOWS, scaling="mean").fitted([series(walk(30))])
    again = Windows.restored(windows.settings, windows.tensors)
    assert again.settings == windows.settings
    assert torch.equal(again.tensors["least"], windows.tensors["least"])


def test_constant_series() -> None:
    values = walk(30)
    values[:, 1] = 7.0
    with pytest.raises(ValueError, match=r"series \[1\] never change"):
        WINDOWS.fitted([series(values)])
