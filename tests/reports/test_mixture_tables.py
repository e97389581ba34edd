"""repro.reports.mixtures: tables from rows whose answer is known."""

from __future__ import annotations

from typing import Any

import pandas as pd

from repro.reports import mixtures


def test_ends_and_plans() -> None:
    end = {"dataset": "s", "moments_kl": 0.0, "correlation": 0.7, "seconds": 1.0}
    rows = [end | {"components": n, "seed": s, "end_kl": v + s} for n, v in ((50, 1.0), (1, 3.0)) for s in range(2)]
    table = mixtures.ends(pd.DataFrame(rows))
    assert table.components.tolist() == [1, 50]
    assert table.end_kl.tolist() == ["3.50 ± 0.71 (2)", "1.50 ± 0.71 (2)"]
    plan = {"method": "VSDM", "beta": 0.1, "components": 32, "floor": 0.1, "independent": 90.0, "ess": 1.0}
    table = mixtures.plans(pd.DataFrame([plan | {"dim": 16, "cbw2_uvp": 2.0}, plan | {"dim": 2, "cbw2_uvp": 1.0}]))
    assert table[["dim", "cbw2_uvp"]].to_numpy().tolist() == [[2, "1 (1)"], [16, "2 (1)"]]


def test_parts_are_chosen_at_each_ones_best_grid() -> None:
    """Two parts win on grid 2, whatever they do on grid 1; a divergent sample cannot be chosen."""
    values = {(1, 1): 2.0, (1, 2): 2.0, (2, 1): 9.0, (2, 2): 1.0, (4, 1): 0.5, (4, 2): 0.5}
    rows = [
        {"dataset": d, "grid_power": g, "nfe": 5, "parts": p, "seed": 0, "seconds": 0.5 * p, "pmf_rmse": v}
        for (p, g), v in values.items() for d in ("a", "b")
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    frame.loc[(frame.parts == 4) & (frame.dataset == "b"), "pmf_rmse"] = float("nan")
    table, best = mixtures.parts(frame)
    assert best == 2
    assert table["2"].tolist() == ["9", "1", "9", "1", "time × 2.00"]


def test_what_a_picture_shows() -> None:
    base: dict[str, Any] = {"dataset": "s", "units": "raw", "prior": "gaussian", "evaluations": 5, "components": None}
    rows = pd.DataFrame([
        base | {"name": "VSCLD with a mixture score", "kind": "family", "a_mode": "mixture", "components": 8},
        base | {"name": "CLD", "kind": "family", "a_mode": "zero"},
        base | {"name": "ot-cfm", "kind": "peer", "a_mode": None},
        base | {"name": "ot-cfm", "kind": "peer", "a_mode": None, "prior": "mixture"},
    ])  # fmt: skip
    labels = mixtures.curves(rows).label.tolist()
    assert labels == ["VSCLD with a mixture score, 8 components, raw", "ot-cfm, raw"]
    table = mixtures.high(pd.DataFrame([{"method": "real", "block_w2": 1.0, "rest_w2": 2.0, "train_seconds": 0.0}]))
    assert table.block_w2.tolist() == ["1 (1)"]
