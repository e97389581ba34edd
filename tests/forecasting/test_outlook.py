"""The future of a panel: quantiles as a table with its dates, features that reach so far, and the picture."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vsmd.data.panels import Panel, from_wide
from vsmd.forecasting import NaivePredictor, VSMDEstimator, fan_chart, outlook


def panel(freq: str = "B", rows: int = 90) -> Panel:
    index = pd.date_range("2024-01-01", periods=rows, freq=freq)
    values = np.random.default_rng(0).standard_normal((rows, 2)).cumsum(0)
    return from_wide(pd.DataFrame(values, index, ["a", "b"]), freq, 3, windows=2, gaps="close")


def test_quantiles_of_the_future() -> None:
    data = panel()
    table = outlook(NaivePredictor("random_walk", 3), data, levels=(0.1, 0.5, 0.9), num_samples=2_000)
    assert table.index.equals(pd.bdate_range("2024-05-06", periods=3, name="time"))
    assert table.columns.equals(pd.MultiIndex.from_product([["a", "b"], [0.1, 0.5, 0.9]]))
    steps = np.diff(data.values[:, -61:])
    std = np.sqrt((steps**2).mean(1))[:, None] * np.sqrt([1, 2, 3])
    for i, name in enumerate("ab"):
        assert np.allclose(table[name][0.5], data.values[i, -1], atol=0.2)
        assert np.allclose((table[name][0.9] - table[name][0.1]) / (2 * 1.2816 * std[i]), 1, atol=0.1)


def test_the_predictors_own() -> None:
    """Weekdays and holidays are known of the future too; closed-up panels go on in their frequency."""
    data = panel().with_weekdays().with_holidays("DE")
    options: dict[str, Any] = {"method": "CLD", "location": "linear", "steps": 2, "width": 8, "scale_window": 10}
    features = data.num_feat_dynamic_real
    predictor = VSMDEstimator(3, "B", num_feat_dynamic_real=features, num_samples=6, **options).train(data.train)
    table = predictor.forecast(data)
    assert table.equals(outlook(predictor, data, num_samples=6))
    assert np.isfinite(table.to_numpy()).all()
    assert table.shape == (3, 10)


def test_effects_of_weekdays() -> None:
    """+2 on Mondays, -2 on Fridays, in a panel without its holidays: the linear rule has them from the features."""
    index = pd.bdate_range("2023-01-02", periods=400).delete([7, 50, 51, 123, 300])
    effect = pd.Series({0: 2.0, 4: -2.0}).reindex(index.dayofweek).fillna(0).to_numpy()
    noise = 0.1 * np.random.default_rng(0).standard_normal((len(index), 2))
    data = from_wide(pd.DataFrame(effect[:, None] + noise, index), "B", 5, windows=1, gaps="close").with_weekdays()
    assert data.num_feat_dynamic_real == 4
    options: dict[str, Any] = {"method": "CLD", "location": "linear", "steps": 2, "width": 8, "num_samples": 50}
    table = VSMDEstimator(5, "B", num_feat_dynamic_real=4, **options).train(data.train).forecast(data, [0.5])
    expected = pd.Series({0: 2.0, 4: -2.0}).reindex(pd.DatetimeIndex(table.index).dayofweek).fillna(0)
    assert np.allclose(table.to_numpy(), expected.to_numpy()[:, None], atol=0.2)


def test_what_is_refused() -> None:
    data = panel()
    walk = NaivePredictor("random_walk", 3)
    with pytest.raises(ValueError, match=r"levels=\[0, 1\]: must be between 0 and 1"):
        outlook(walk, data, [0, 1])
    short = Panel("p", "B", data.start, data.values, data.names, 3, 2, features=np.zeros((1, 90)))
    with pytest.raises(ValueError, match="features: end with the panel; must have 93 columns"):
        outlook(walk, short)
    with pytest.raises(ValueError, match="series='c': must be one of a, b"):
        fan_chart(outlook(walk, data), data, "c")


def test_the_picture() -> None:
    data = panel()
    table = outlook(NaivePredictor("random_walk", 3), data)
    import matplotlib

    matplotlib.use("Agg")
    axes = fan_chart(table, data, "b", past=7)
    past, median = axes.lines
    assert np.array_equal(past.get_ydata(), data.values[1, -7:])
    assert np.array_equal(median.get_ydata(), table["b"][0.5])
    assert len(axes.collections) == 2
    matplotlib.pyplot.close(axes.figure)


def test_no_picture_no_matplotlib() -> None:
    code = "import sys, vsmd.forecasting; assert 'matplotlib.pyplot' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
