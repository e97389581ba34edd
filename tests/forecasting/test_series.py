"""GluonTS items as tensors: gaps, features, calendar positions, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vsmd.data.calendars import as_period
from vsmd.forecasting.series import as_values, fourier, position_of, read, seasons


def item(**changed: Any) -> dict[str, Any]:
    plain = {"start": as_period("2024-01-01", "D"), "target": np.arange(12.0).reshape(2, 6)}
    return {**plain, **changed}


@pytest.mark.parametrize(
    ("freq", "expected"),
    [("B", ()), ("D", (7,)), ("h", (24, 168)), ("6h", (4, 28)), ("15min", (96, 672)), ("M", (12,)), ("W", (52,))],
)
def test_seasons(freq: str, expected: tuple[int, ...]) -> None:
    assert seasons(freq) == expected


def test_fourier_features_have_their_period() -> None:
    waves = fourier(torch.tensor([5, 29, 6]), (24,), 2)
    assert waves.shape == (3, 4)
    assert torch.allclose(waves[0], waves[1])
    assert not torch.allclose(waves[0], waves[2], atol=1e-2)
    assert fourier(torch.arange(3), (), 2).shape == (3, 0)


def test_positions_count_steps() -> None:
    assert position_of("2024-01-03", "D") - position_of("2024-01-01", "D") == 2
    assert position_of("2024-01-02", "6h") - position_of("2024-01-01", "6h") == 4


def test_features_cover_history_and_horizon() -> None:
    full = item(feat_dynamic_real=np.arange(8.0)[None], feat_static_real=[5.0])
    series = read(full, "D", 2, 2, 1, 1)
    assert series.values.shape == (6, 2)
    assert series.features(1, 2).tolist() == [[5.0, 5.0], [6.0, 5.0], [7.0, 5.0]]
    end = series.last(4)
    assert end.position == series.position + 2
    assert end.values[0].tolist() == [2.0, 8.0]
    assert end.features(0, 2).tolist() == series.features(0, 2).tolist()
    assert series.first(4).values.shape == (4, 2)
    assert read(full, "D", 2, 2, 0, 0).features(3, 2).shape == (5, 0)  # features that nobody asked for


def test_missing_values_stay_nan() -> None:
    target = np.arange(12.0).reshape(2, 6)
    target[0, 2] = np.nan
    assert read(item(target=target), "D", 2, 0, 0, 0).values.isnan().sum() == 1


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([[1.0, 2.0]], "2 time steps; must be at least 3"),
        ([[1.0, 2.0, 3.0], [float("nan")] * 3], r"series \[1\] have no value at all"),
        ([[1.0, 2.0, float("inf")]], "1 of 3 values are missing or infinite"),
        ([[[1.0]]], r"shape \(1, 1, 1\); must be"),
        ([[1.0, 2.0, 3.0], [1.0, 2.0]], "every series of the same length"),
        ("text", "must be a table of numbers"),
    ],
)
def test_bad_targets(target: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_values(target, "target", 3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"target": [[1.0, np.inf, 2.0]]}, "infinite; give NaN where a value is missing"),
        ({"start": "soon"}, "start='soon': must be a time stamp"),
        ({"feat_static_real": [1.0, 2.0]}, r"feat_static_real: shape \(2,\); must be \(1,\)"),
        ({"feat_dynamic_real": np.zeros((1, 6))}, r"feat_dynamic_real: shape \(1, 6\); must be \(1, 8\)"),
        ({"feat_dynamic_real": np.full((1, 8), np.nan)}, "feat_dynamic_real: must be finite"),
    ],
)
def test_bad_items(changed: dict[str, Any], message: str) -> None:
    good = {"feat_dynamic_real": np.zeros((1, 8)), "feat_static_real": [1.0]}
    with pytest.raises(ValueError, match=message) as caught:
        read(item(**{**good, **changed}), "D", 2, 2, 1, 1)
    assert "\n" not in str(caught.value)


def test_a_wrong_frequency_is_told_before_the_length() -> None:
    """Hours are too few for a quarter of an hour's lags, and no quarters of an hour."""
    with pytest.raises(ValueError, match=r"^freq='15min': start='2024-01-01 00:00' is a period of freq='h'"):
        read({"start": as_period("2024-01-01", "h"), "target": np.arange(9.0)}, "15min", 700, 0, 0, 0)
