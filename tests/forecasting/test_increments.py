"""The representation: scales and contexts by hand, training pairs and recurrent state say the same."""

from __future__ import annotations

import math

import pytest
import torch

from vsmd.forecasting.increments import CLIP, Increments, as_values, check_context, seasons
from vsmd.random import generator

CONTEXT = ("scales", "lags", "seasons")


def walk(steps: int, dim: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(steps, dim, generator=generator(seed, "walk"), dtype=torch.float64).cumsum(0)


def test_scale_by_hand() -> None:
    how = Increments(scale_window=3, long_run=torch.tensor([2.0], dtype=torch.float64))
    recent = torch.tensor([[[1.0], [-2.0], [3.0]]], dtype=torch.float64)
    scale, context = how.look(recent, torch.tensor([0]))
    assert scale.item() == pytest.approx(math.sqrt((1 + 4 + 9 + 4) / 4))  # one pseudo-step at the long-run scale
    fast = math.sqrt((9 + 18 / 4) / 2)  # the last step, and one at the local scale
    assert context[0].tolist() == pytest.approx([math.log(scale.item() / 2), math.log(fast / scale.item())])


@pytest.mark.parametrize("difference", [1, 4])
def test_state_continues_the_training_pairs(difference: int) -> None:
    """Feeding the true standardised increments back gives the series, its scales and its contexts."""
    values = walk(60)
    how = Increments(5, difference, CONTEXT, periods=(7,), drift=True).fitted([values])
    x, context = how.pairs(values, start=3)
    assert context.shape == (60 - how.history, how.features(2))
    begin = 40
    state = how.begin(values[None, begin - how.history : begin], torch.tensor([3 + begin]))
    for t in range(begin, 60):
        row = t - how.history
        assert torch.allclose(state.context[0], context[row], atol=1e-5)
        assert torch.allclose(state.advance(x[None, row])[0], values[t], atol=1e-5)


def test_without_drift_the_law_is_symmetric() -> None:
    values = walk(400) + 0.5 * torch.arange(400)[:, None]
    how = Increments(10, context=CONTEXT, lags=1, periods=(7,)).fitted([values])
    x, context = how.pairs(values, 0)
    assert len(x) == 2 * (400 - how.history)
    assert x.mean(0).abs().max() < 1e-6
    drifting = Increments(10, drift=True).fitted([values])
    assert drifting.pairs(values, 0)[0].mean() > 0.2
    assert torch.allclose(context[:, 4:6].mean(0), torch.zeros(2), atol=1e-6)  # lags change sign with the increments


def test_constant_stretches_and_broken_pegs_stay_finite() -> None:
    values = walk(300)
    values[:150, 0] = values[0, 0]
    values[150:, 0] += 100.0
    how = Increments(20).fitted([values])
    x, context = how.pairs(values, 0)
    assert bool(torch.isfinite(x).all() and torch.isfinite(context).all())
    assert x.abs().max() <= CLIP


def test_settings_are_complete() -> None:
    how = Increments(7, 2, CONTEXT, 3, (24, 168), True).fitted([walk(50)])
    again = Increments.from_settings(how.settings)
    assert again.settings == how.settings
    assert torch.equal(again.pairs(walk(50), 0)[1], how.pairs(walk(50), 0)[1])


@pytest.mark.parametrize(
    ("freq", "expected"),
    [("B", ()), ("D", (7,)), ("h", (24, 168)), ("6h", (4, 28)), ("15min", (96, 672)), ("M", (12,)), ("W", (52,))],
)
def test_seasons(freq: str, expected: tuple[int, ...]) -> None:
    assert seasons(freq) == expected


def test_season_features_have_their_period() -> None:
    how = Increments(3, context=("seasons",), periods=(24,), long_run=torch.ones(1, dtype=torch.float64))
    at = [how.look(torch.ones(1, 3, 1, dtype=torch.float64), torch.tensor([p]))[1] for p in (5, 29, 6)]
    assert torch.allclose(at[0], at[1], atol=1e-6)
    assert not torch.allclose(at[0], at[2], atol=1e-2)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([[1.0, 2.0]], "2 time steps; must be at least 3"),
        ([[1.0, 2.0, 3.0], [float("nan")] * 3], r"series \[1\] have no value at all"),
        ([[1.0, 2.0, float("inf")]], "1 of 3 values are missing or infinite"),
        ([[[1.0]]], r"shape \(1, 1, 1\); must be"),
    ],
)
def test_bad_targets(target: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_values(target, "target", 3)


def test_constant_series_and_unknown_context() -> None:
    values = walk(30)
    values[:, 1] = 2.0
    with pytest.raises(ValueError, match=r"series \[1\] never change"):
        Increments().fitted([values])
    with pytest.raises(ValueError, match="context='scale': must be one of"):
        check_context("scale")
