"""The forecasting runs: rows as declared, the chosen one marked, fan charts kept; what validation chooses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from repro import grid
from repro.grid.runs import Result
from repro.studies import forecast_choices, forecasts
from repro.studies.forecast_settings import SETTINGS, VARIANTS, candidates
from vsmd.data.panels import Panel, from_wide
from vsmd.forecasting import VSMDEstimator
from vsmd.methods import FAMILY


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Panel:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((420, 4)).cumsum(0) + 9, pd.bdate_range("2024-01-01", periods=420))
    panel = from_wide(frame, "B", 4, windows=2)
    monkeypatch.setattr(forecasts, "panel", lambda name: panel)
    return panel


def test_one_run() -> None:
    made = forecasts.run("small", "VSULD", 3, "scales", steps=3, samples=9, solvers=["heun", "euler"], selected=True)
    assert made.points is not None
    rows = made.tables["crps"]
    assert list(rows[0]) == forecasts.CRPS_COLUMNS
    assert [(r["solver"], r["nfe"], r["selected"], r["a_mode"]) for r in rows] == [
        ("heun", 10, 1, "adaptive"),
        ("euler", 10, 0, "adaptive"),
    ]
    assert [r["level"] for r in made.tables["crps_coverage"]] == [k / 10 for k in range(1, 10)]
    shares = [r["share"] for r in made.tables["crps_pit"]]
    assert len(shares) == forecasts.PIT_BINS
    assert sum(shares) == pytest.approx(1)
    fan = made.points["fan_small_original_increments_VSULD_adaptive_3"]
    assert fan.shape == (2 * 4 * 3, 3 + 5)
    assert (np.diff(fan[:, 3:], axis=1) >= 0).all()


def test_denoised_forecasts_are_rows_of_their_own() -> None:
    """Named so, with fan charts of their own, and not what the solver leaves."""
    plain, clean = (
        forecasts.run("small", "CLD", 3, "scales", steps=3, samples=9, solvers=["heun"], denoise=d)
        for d in (False, True)
    )
    (before,), (after,) = plain.tables["crps"], clean.tables["crps"]
    assert (after["solver"], after["nfe"]) == ("heun+denoise", 10)
    assert after["crps"] != before["crps"]
    assert {row["solver"] for row in clean.tables["crps_pit"]} == {"heun+denoise"}
    assert set(clean.points or {}) == {f"{name}+denoise" for name in plain.points or {}}


def test_the_papers_model_is_run_alike() -> None:
    (row,) = forecasts.run("small", "CLD", 0, "paper", steps=2, samples=4, nfes=[4]).tables["crps"]
    assert (row["method"], row["model"], row["a_mode"], row["nfe"]) == ("CLD", "paper", "zero", 4)


def test_protocols_are_cut_from_the_training_part_and_do_not_touch(small: Panel) -> None:
    rolling, selection = (forecasts.panel_of("small", p) for p in ("rolling20", "selection"))
    assert (rolling.values.shape[1], rolling.windows) == (small.first, 20)
    assert (selection.values.shape[1], selection.windows) == (rolling.first, 20)


def test_baselines() -> None:
    made = forecasts.baselines("small", [4, 5], window=30)
    rows = made.tables["crps"]
    assert [(r["method"], r["seed"]) for r in rows] == [
        ("last_value", 4),
        ("random_walk", 4),
        ("random_walk", 5),
        ("seasonal_naive", 4),
        ("seasonal_bootstrap", 4),
        ("seasonal_bootstrap", 5),
    ]
    assert all(r["crps_sum"] > 0 and r["model"] is None and r["selected"] == 0 for r in rows)
    assert rows[1]["crps_sum"] != rows[2]["crps_sum"]
    assert set(made.points or {}) == {f"fan_small_original_{k}_4" for k in ("random_walk", "seasonal_bootstrap")}
    assert {r["method"] for r in made.tables["crps_pit"]} == {"random_walk", "seasonal_bootstrap"}


def test_peers() -> None:
    (row,) = forecasts.peer("small", "var", 1).tables["crps"]
    assert (row["method"], row["seed"], row["model"]) == ("var", 1, None)
    assert row["train_seconds"] > 0


def test_candidates_and_walks_are_rows_of_one_table() -> None:
    (row,) = forecast_choices.candidate("small", "CLD", 0, "no context", steps=2, nfe=4).tables["crps_selection"]
    assert (row["variant"], row["settings"], row["nfe"]) == ("CLD", "no context", 4)
    rows = forecast_choices.walks("small", [0, 1], samples=20).tables["crps_selection"]
    assert [(r["settings"], r["seed"]) for r in rows] == [(w, s) for w in (30, 60, 250) for s in (0, 1)]


def test_the_lowest_mean_over_seeds_is_chosen() -> None:
    rows = [("a", "x", 1.0), ("a", "x", 5.0), ("a", "y", 2.5), ("a", "y", 2.6), ("b", "x", 0.1)]
    table = pd.DataFrame(rows, columns=["dataset", "settings", "crps_sum"])
    assert forecast_choices.chosen(table, "a", "settings") == "y"
    with pytest.raises(ValueError, match="dataset='c': no rows to choose from"):
        forecast_choices.chosen(table, "c", "settings")


def test_what_is_no_longer_chosen_is_found(tmp_path: Path) -> None:
    store = grid.Store(tmp_path)
    runs = [
        *grid.product("m:run", dataset=["a", "b"], protocol="original", variant=["CLD", "ULD"], selected=True),
        *grid.product("m:run", dataset="a", protocol="original", variant="SGM"),
    ]
    for number, run in enumerate(runs):
        store.put(run, Result({"crps": [{"n": number}]}), code={}, provenance={"date": "", "seconds": 0})
    now = [runs[1], runs[4]]  # ULD on a; nothing is declared for b
    assert forecast_choices.superseded(store, now) == [runs[0].key]


def test_every_setting_is_one_the_estimator_takes() -> None:
    assert set(VARIANTS) == {*FAMILY, "VSULD steered"}  # no other row of the methods' table: each is hours of training
    for variant in VARIANTS.values():
        VSMDEstimator(3, "h", **variant)
    for settings in SETTINGS.values():
        VSMDEstimator(3, "h", **settings)
    for freq in ("B", "h"):
        assert set(candidates(freq)) <= set(SETTINGS)


def test_missing_data_sets_are_named(small: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert forecasts.available(["small"]) == ({"small": small}, {})

    def absent(name: str) -> Panel:
        raise FileNotFoundError(f"{name}: not found")

    monkeypatch.setattr(forecasts, "panel", absent)
    assert forecasts.available(["x"]) == ({}, {"x": "x: not found"})
