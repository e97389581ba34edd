"""Choosing on earlier windows: the better candidate, blind to the test part, wrong ones told before any training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from vsmd.data.panels import Panel, from_wide
from vsmd.forecasting import NaivePredictor, VSMDEstimator, accuracy, choose, forecast
from vsmd.forecasting.choice import lowest, scored

TINY: dict[str, Any] = {"method": "CLD", "steps": 20, "width": 16, "depth": 2, "scale_window": 24}


def hours(days: int = 30) -> Panel:
    """Two series with a day of their own and a little noise."""
    time = np.arange(24 * days)
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, len(time)))
    values = 3 + np.sin(2 * np.pi * (time + np.array([[0], [6]])) / 24) + noise
    return from_wide(
        pd.DataFrame(values.T, pd.date_range("2024-01-01", periods=len(time), freq="h")), "h", 24, windows=2
    )


def test_the_default_knows_of_days() -> None:
    """Of an hourly panel: far ahead of the last value, and as good as yesterday with bootstrapped residuals."""
    panel = hours()
    name, scores = choose(
        panel,
        {
            "last": TINY | {"location": "last"},
            "default": TINY,
            "naive": NaivePredictor("seasonal_bootstrap", 24, season=24),
        },
        windows=3,
    )
    crps = scores.set_index("candidate").crps_sum
    assert name == crps.idxmin() == "default"
    assert crps["default"] < crps["last"] / 3
    predictor = VSMDEstimator(24, "h", **TINY).train(panel.train)
    assert accuracy(forecast(predictor, panel), panel.targets)["crps_sum"] < 1.3 * crps["default"]


@pytest.mark.parametrize("freq", ["B", "D"])
def test_the_default_is_near_a_random_walk_where_that_is_right(freq: str) -> None:
    """Rates have no week: business days start from the last value, days lose little by a rule that looks for one."""
    values = 100 + np.random.default_rng(0).standard_normal((400, 2)).cumsum(0)
    frame = pd.DataFrame(values, pd.date_range("2020-01-01", periods=400, freq=freq))
    panel = from_wide(frame, freq, 10, windows=5)
    representation: Any = VSMDEstimator(10, freq).representation
    assert representation.location == {"B": "last", "D": "linear"}[freq]
    walk = scored(NaivePredictor("random_walk", 10), panel)["crps_sum"]
    assert scored(TINY, panel)["crps_sum"] < 1.3 * walk


def test_scores_are_those_of_the_windows_before_the_test_part() -> None:
    panel = hours(12)
    walks = {f"walk {w}": NaivePredictor("random_walk", 24, window=w) for w in (5, 60)}
    name, scores = choose(panel, walks, windows=4, seeds=(0, 1))
    inner = panel.validation(4)
    expected = {n: accuracy(forecast(w, inner), inner.targets)["crps_sum"] for n, w in walks.items()}
    assert scores.groupby("candidate").crps_sum.mean().to_dict() == pytest.approx(expected)
    assert list(scores.columns[:2]) == ["candidate", "seed"]
    assert name == min(expected, key=lambda n: expected[n]) == lowest(scores, "candidate")
    assert scored(walks["walk 5"], inner)["crps_sum"] == expected["walk 5"]
    values = panel.values.copy()
    values[:, panel.first :] = 50.0  # what is tested has no say
    other = Panel("p", "h", panel.start, values, panel.names, 24, 2)
    assert choose(other, walks, windows=4, seeds=(0, 1))[1].equals(scores)


def test_one_that_fails_is_left_out() -> None:
    panel = hours(12)
    candidates = {"long": TINY | {"scale_window": 500}, "walk": NaivePredictor("random_walk", 24)}
    with pytest.warns(UserWarning, match=r"candidates: 'long' is left out .*scale_window=500"):
        assert choose(panel, candidates, windows=2)[0] == "walk"
    with (
        pytest.warns(UserWarning, match="'long'"),
        pytest.raises(ValueError, match="candidates: none could be trained"),
    ):
        choose(panel, {"long": candidates["long"]}, windows=2)


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ({}, "candidates: 0 with 1 seeds; must be one or more"),
        ({"walk": NaivePredictor("random_walk", 12)}, "'walk' has prediction_length=12; must be 24"),
        ({"a": {}, "b": {"location": "lats"}}, "location='lats': must be one of"),
        ({"a": 3}, "candidates: 'a' must be options, an estimator or a predictor"),
    ],
)
def test_what_is_refused_before_any_training(
    candidates: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VSMDEstimator, "train", lambda *_: pytest.fail("trained"))
    with pytest.raises(ValueError, match=message):
        choose(hours(12), candidates, windows=2)
