"""The forecasting runs: rows as declared, the chosen one marked, fan charts kept."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from vsmd.data.panels import Panel, from_wide
from vsmd.experiments import forecasts


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Panel:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((250, 4)).cumsum(0) + 9, pd.bdate_range("2024-01-01", periods=250))
    panel = from_wide(frame, "B", 4, windows=2)
    monkeypatch.setattr(forecasts, "panel", lambda name: panel)
    return panel


def test_one_run() -> None:
    made = forecasts.run("small", "VSULD", 3, steps=3, samples=9, solvers=["heun", "euler"], nfes=[40])
    assert made.points is not None
    rows = made.tables["crps"]
    assert list(rows[0]) == forecasts.CRPS_COLUMNS
    assert [(r["solver"], r["nfe"], r["selected"], r["a_mode"]) for r in rows] == [
        ("heun", 40, 1, "adaptive"),
        ("euler", 40, 0, "adaptive"),
    ]
    assert [r["level"] for r in made.tables["crps_coverage"]] == [k / 10 for k in range(1, 10)]
    fan = made.points["fan_small_original_VSULD_3"]
    assert fan.shape == (2 * 4 * 3, 3 + 5)
    assert (np.diff(fan[:, 3:], axis=1) >= 0).all()


def test_rolling_windows_are_cut_from_the_training_part(small: Panel) -> None:
    panel = forecasts.panel_of("small", "rolling20")
    assert panel.values.shape[1] == small.first
    assert panel.windows == 20


def test_baselines() -> None:
    rows = forecasts.baselines("small", [4, 5]).tables["crps"]
    assert [(r["method"], r["seed"]) for r in rows] == [
        ("last_value", 4),
        ("random_walk", 4),
        ("random_walk", 5),
        ("seasonal_naive", 4),
    ]
    assert all(r["crps_sum"] > 0 and r["model"] is None for r in rows)
    assert rows[1]["crps_sum"] != rows[2]["crps_sum"]


def test_candidates() -> None:
    (row,) = forecasts.candidate("small", "no context", 0, steps=2).tables["crps_selection"]
    assert row["candidate"] == "no context"


def test_missing_data_sets_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Panel:
        raise FileNotFoundError(f"{name}: not found")

    monkeypatch.setattr(forecasts, "panel", absent)
    assert forecasts.available(["x"]) == ([], {"x": "x: not found"})
