"""The representation: scales and contexts by hand, training pairs and recurrent state say the same, gaps, low rank."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vsmd.forecasting.contexts import CLIP, check_context
from vsmd.forecasting.increments import FLOOR, Increments
from vsmd.forecasting.locations import check_location
from vsmd.forecasting.series import Series
from vsmd.forecasting.state import IncrementState, Paths
from vsmd.random import generator

CONTEXT = ("scales", "lags", "levels", "seasons")
CPU = torch.device("cpu")


def series(values: Tensor, position: int = 0) -> Series:
    return Series(values, position, torch.zeros(len(values) + 100, 0), torch.zeros(0))


def walk(steps: int, dim: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(steps, dim, generator=generator(seed, "walk"), dtype=torch.float64).cumsum(0)


def begin(increments: Increments, past: Series, horizon: int) -> IncrementState:
    return IncrementState(increments, [past.last(increments.history)], nn.Identity(), horizon, CPU)


def test_scale_by_hand() -> None:
    values = torch.tensor([[0.0], [2.0], [0.0], [1.0], [-1.0], [2.0], [5.0]], dtype=torch.float64)
    increments = Increments(scale_window=3).fitted([series(values)])
    assert increments.long_run is not None
    rho = math.sqrt((4 + 4 + 1 + 4 + 9 + 9) / 6)
    assert increments.long_run.item() == pytest.approx(rho)
    state = begin(increments, series(values[:6]), 1)
    scale = math.sqrt((1 + 4 + 9 + rho**2) / 4)  # the last three steps, and one pseudo-step at the long-run scale
    fast = math.sqrt((9 + scale**2) / 2)  # the last step, and one at the local scale
    assert state.scale.item() == pytest.approx(scale)
    assert state.context.flatten().tolist() == pytest.approx([math.log(scale / rho), math.log(fast / scale)])


@pytest.mark.parametrize("gap", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"location": "season", "periods": (7, 12)},
        {"location": "profile", "periods": (7, 12)},
        {"location": "linear", "periods": (7, 12), "lags_seq": (1, 9), "factors": 1},
        {"location": "linear", "periods": (7,), "lags_seq": (2,), "lags": 9},
        {"rank": 3},
    ],
)
def test_state_continues_the_training_pairs(options: dict[str, Any], gap: bool) -> None:
    """Feeding the true standardised increments back gives the series, its scales and its contexts."""
    values = walk(90, 3)
    if gap:
        values[60:64, 1] = torch.nan
        values[3, 2] = torch.nan
    past = series(values, 3)
    increments = Increments(**{"scale_window": 8, "context": CONTEXT, "drift": True, **options}).fitted([past])
    xi, context = increments.standardised(past)
    assert context.shape == (90 - increments.history, increments.features(3))
    at = 66
    state = begin(increments, past.first(at), 90 - at)
    for t in range(at, 90):
        row = t - increments.history
        assert torch.allclose(state.context[0, 0], context[row], atol=1e-5)
        x, others = xi[row, None, None], None
        if increments.axes is not None and increments.deviations is not None:
            r = increments.size(3)
            turned = x @ increments.axes
            x, others = turned[..., :r], turned[..., r:] / increments.deviations[r:]
        assert torch.allclose(state.advance(x, others)[0, 0], values[t], atol=1e-9)


def test_without_drift_the_law_is_symmetric() -> None:
    values = walk(400) + 0.5 * torch.arange(400)[:, None]
    increments = Increments(scale_window=10, context=CONTEXT, lags=1, periods=(7,)).fitted([series(values)])
    x, context = increments.pairs([series(values)])
    assert len(x) == 2 * (400 - increments.history)
    assert x.mean(0).abs().max() < 1e-6
    drifting = Increments(scale_window=10, drift=True).fitted([series(values)])
    assert drifting.pairs([series(values)])[0].mean() > 0.2
    assert torch.allclose(context[:, 4:6].mean(0), torch.zeros(2), atol=1e-6)  # lags change sign with the increments
    assert context[:, 6:8].mean() != 0


def test_constant_stretches_and_broken_pegs_stay_finite() -> None:
    values = walk(300)
    values[:150, 0] = values[0, 0]
    values[150:, 0] += 100.0
    increments = Increments(scale_window=20).fitted([series(values)])
    x, context = increments.pairs([series(values)])
    assert bool(torch.isfinite(x).all() and torch.isfinite(context).all())
    assert x.abs().max() <= CLIP


def test_seasonal_scales() -> None:
    """Steps that are three times as large every fourth time, and never at another: known, and floored."""
    size = torch.tensor([1.0, 3.0, 1.0, 0.0], dtype=torch.float64).repeat(250)[:, None]
    values = 50 + size * torch.randn(1_000, 1, generator=generator(0), dtype=torch.float64)
    increments = Increments(location="linear", lags_seq=(1,), periods=(4,)).fitted([series(values)])
    assert increments.long_run is not None
    ratio = increments.long_run[:, 0] / increments.long_run[0, 0]
    assert ratio[:3].tolist() == pytest.approx([1.0, 3.0, 1.0], rel=0.15)
    assert ratio[3] < 0.6  # what is left there is the rule's error
    same = Increments(location="season", periods=(4,)).fitted([series(values)]).long_run
    assert same is not None
    assert (same[3] / same[1]).item() == pytest.approx(FLOOR, rel=0.6)


def test_values_that_were_never_negative_stay_so() -> None:
    values = walk(200)
    values[:, 0] = values[:, 0].abs()
    values[-1] = 0.0
    increments = Increments(scale_window=10).fitted([series(values)])
    state = begin(increments, series(values), 1)
    new = state.advance(torch.full((1, 1, 2), -CLIP))
    assert new[0, 0, 0] == 0.0
    assert new[0, 0, 1] < 0


def test_contexts_stay_within_what_training_has_seen() -> None:
    values = walk(200)
    increments = Increments(scale_window=5, context=CONTEXT, drift=True).fitted([series(values)])
    seen = increments.standardised(series(values))[1]
    state = begin(increments, series(values), 9)
    for _ in range(8):
        state.advance(torch.full((1, 1, 2), CLIP))
    assert bool((state.context <= seen.amax(0)).all())
    assert bool((state.context == seen.amax(0)).any())
    assert state.scale.min() > 5  # the scale itself is free


def test_low_rank_keeps_the_covariance() -> None:
    """Leading axes from the model, the others Gaussian: with unit normals for both, xi has the sample's covariance."""
    mix = torch.randn(5, 5, generator=generator(3), dtype=torch.float64)
    values = (torch.randn(3_000, 5, generator=generator(4), dtype=torch.float64) @ mix).cumsum(0) + 500
    increments = Increments(scale_window=100, rank=2).fitted([series(values)])
    assert increments.axes is not None
    assert increments.deviations is not None
    x, context = increments.pairs([series(values)])
    assert x.shape[1] == 2
    assert context.shape[1] == increments.features(5) == 4
    scatter = x.double().T @ x.double() / len(x)
    assert torch.allclose(scatter, increments.deviations[:2].square().diag(), atol=1e-5)
    xi = increments.standardised(series(values))[0]
    law = increments.axes @ increments.deviations.square().diag() @ increments.axes.T
    assert torch.allclose(law, xi.T @ xi / len(xi), atol=1e-8)
    assert bool((increments.deviations.diff() <= 0).all())


def test_missing_increments_are_drawn_given_the_others() -> None:
    noise = torch.randn(4_000, 2, generator=generator(5), dtype=torch.float64)
    steps = torch.stack([noise[:, 0], 0.9 * noise[:, 0] + math.sqrt(1 - 0.81) * noise[:, 1]], 1)
    values = 100 + 0.1 * steps  # no walk: a gap of the first series ends where it began
    values[500::2, 1] = torch.nan
    values[700] = torch.nan
    past = series(values)
    increments = Increments(location="linear", lags_seq=(1,), scale_window=200, drift=True).fitted([past])
    x, context = increments.pairs([past])
    assert len(x) == len(context) == 3_999 - increments.history  # one step is without any value
    assert bool(torch.isfinite(x).all())
    observed = ~values[increments.history :].isnan().all(1)
    filled = x[values[increments.history :, 1][observed].isnan()]
    assert torch.corrcoef(filled.T)[0, 1].item() == pytest.approx(0.9, abs=0.04)
    assert torch.equal(increments.pairs([past])[0], increments.pairs([past])[0])
    assert not torch.equal(increments.pairs([past], seed=1)[0], increments.pairs([past])[0])


@pytest.mark.parametrize(
    "options", [{}, {"location": "profile"}, {"location": "linear", "factors": 1, "rank": 1, "lags_seq": (1, 3)}]
)
def test_files_are_complete(options: dict[str, Any]) -> None:
    values = walk(240)
    increments = Increments(scale_window=7, context=CONTEXT, periods=(24, 168), **options).fitted([series(values)])
    again = Increments.restored(increments.settings, increments.tensors)
    assert again.settings == increments.settings
    for one, two in zip(increments.standardised(series(values)), again.standardised(series(values))):
        assert torch.equal(one, two)


def test_paths_share_their_past() -> None:
    past = torch.arange(12.0).view(2, 3, 2)
    paths = Paths(past)
    assert torch.equal(paths.lagged(1), past[:, None, 2])
    paths.append(torch.ones(2, 4, 2))
    assert torch.equal(paths.lagged(1), torch.ones(2, 4, 2))
    assert torch.equal(paths.lagged(2), past[:, None, 2])
    assert paths.lagged(4).shape == (2, 1, 2)


def test_bad_settings() -> None:
    values = walk(90)
    values[:, 1] = 2.0
    with pytest.raises(ValueError, match=r"series \[1\] never change"):
        Increments().fitted([series(values)])
    values[:, 1] = torch.arange(90) % 7
    with pytest.raises(ValueError, match=r"series \[1\] follow location='season' without error"):
        Increments(location="season", periods=(7,)).fitted([series(values)])
    with pytest.raises(ValueError, match="context='scale': must be one of"):
        check_context("scale")
    with pytest.raises(ValueError, match="location='season': must be another one, freq='B' has no season"):
        check_location("season", (), "B")
    with pytest.raises(ValueError, match="location='profile': must be another one, freq='B' has no season"):
        check_location("profile", (), "B")
    with pytest.raises(ValueError, match=r"location='lats': .*did you mean 'last'"):
        check_location("lats", (), "B")


@pytest.mark.parametrize("context", [torch.tensor(1.0), 3])
def test_a_context_that_is_no_name(context: Any) -> None:
    with pytest.raises(ValueError, match=r"^context=.*: must be one of"):
        Increments.configured(3, "D", context=context)
