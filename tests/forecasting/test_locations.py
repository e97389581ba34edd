"""The location: ridge finds the rule that made the data, gaps are filled in order, factors see the other series."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vsmd.forecasting.gaps import carried
from vsmd.forecasting.locations import Location, regressors
from vsmd.forecasting.series import Series
from vsmd.random import generator


def series(values: Tensor, position: int = 0, dynamic: Tensor | None = None) -> Series:
    known = torch.zeros(len(values) + 100, 0) if dynamic is None else dynamic
    return Series(values, position, known, torch.zeros(0))


def autoregression(steps: int = 4_000, dim: int = 2) -> Tensor:
    """y_t = .6 y_{t-1} + .3 y_{t-7} + 2 + sin(2 pi t / 7) + N(0, 1)."""
    noise = torch.randn(steps, dim, generator=generator(0, "ar"), dtype=torch.float64)
    y = 20 + noise
    for t in range(7, steps):
        y[t] = 0.6 * y[t - 1] + 0.3 * y[t - 7] + 2 + math.sin(2 * math.pi * t / 7) + noise[t]
    return y


def test_ridge_finds_the_rule() -> None:
    rule = Location.fitted([series(autoregression())], (1, 7), (7,))
    assert torch.allclose(rule.weights, torch.tensor([[0.6], [0.3]], dtype=torch.float64), atol=0.05)
    values = autoregression()
    known = regressors(series(values), (7,))
    t = torch.arange(7, len(values))
    expected = 0.6 * values[6:-1] + 0.3 * values[:-7] + 2 + torch.sin(2 * math.pi * t / 7)[:, None]
    assert (rule.along(values, known) - expected).square().mean() < 0.02


def test_shift_and_scale_carry_over() -> None:
    """The rule of a y + b is that of y, carried over: ridge works in units of the series."""
    values, shift = autoregression(500), torch.tensor([3.0, -100.0], dtype=torch.float64)
    size = torch.tensor([10.0, 0.1], dtype=torch.float64)
    one, two = (Location.fitted([series(v)], (1, 7), (7,), 1) for v in (values, size * values + shift))
    known = regressors(series(values), (7,))
    assert torch.allclose(size * one.along(values, known) + shift, two.along(size * values + shift, known), rtol=1e-6)


def test_dynamic_features_are_used() -> None:
    driver = torch.randn(600, 1, generator=generator(1))
    values = autoregression(600) + 5 * driver.double()
    errors = [
        (Location.fitted([s], (1, 7), ()).along(s.values, regressors(s, ())) - s.values[7:]).square().mean()
        for s in (series(values), series(values, dynamic=driver))
    ]
    assert errors[1] < errors[0] / 2


def test_factors_see_the_other_series() -> None:
    """The second series is what the first was a step ago: its own lags say nothing, the factors all."""
    first = torch.randn(2_000, generator=generator(2), dtype=torch.float64)
    values = torch.stack([first, first.roll(1)], 1)[1:]
    alone, together = (Location.fitted([series(values)], (1,), (), q) for q in (0, 2))
    known = regressors(series(values), ())
    assert (alone.along(values, known)[:, 1] - values[1:, 1]).square().mean() > 0.9
    assert (together.along(values, known)[:, 1] - values[2:, 1]).square().mean() < 0.01
    assert (alone.reach, together.reach) == (1, 2)


def test_gaps_are_left_out_of_the_fit_and_filled_by_it() -> None:
    values = autoregression()
    gappy = values.clone()
    gappy[1_000:1_005, 0] = torch.nan
    gappy[2_000, 1] = torch.nan
    rule = Location.fitted([series(gappy)], (1, 7), (7,))
    assert torch.allclose(rule.weights, Location.fitted([series(values)], (1, 7), (7,)).weights, atol=0.02)
    whole = rule.filled(series(gappy))
    known = regressors(series(gappy), (7,))
    assert torch.equal(whole[~gappy.isnan()], values[~gappy.isnan()])
    assert torch.allclose(whole[1_000:1_005, 0], rule.along(whole, known)[993:998, 0])  # its own forecast, step by step


def test_means_of_lags() -> None:
    values, no = autoregression(30), regressors(series(autoregression(30)), ())
    assert torch.equal(Location.mean((7,), 2).along(values, no), values[:-7])  # the value a season ago
    weeks = torch.stack([values[21 - lag : 30 - lag] for lag in (7, 14, 21)])
    assert torch.allclose(Location.mean((7, 14, 21), 2).along(values, no), weeks.mean(0))


def test_carried() -> None:
    nan = math.nan
    values = torch.tensor([[nan, 1.0], [2.0, nan], [nan, nan], [4.0, 5.0]], dtype=torch.float64)
    assert carried(values).T.tolist() == [[2.0, 2.0, 2.0, 4.0], [1.0, 1.0, 1.0, 5.0]]


@pytest.mark.parametrize("periods", [(), (7,), (24, 168)])
def test_regressors_reach_ahead(periods: tuple[int, ...]) -> None:
    long, short = series(autoregression(40), 3), series(autoregression(40)[:30], 3)
    assert torch.equal(regressors(short, periods, 10), regressors(long, periods))
