"""repro.reports.units: what is left of A beside the plain method in other units, from rows whose order is known."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from repro.reports import units

FEW = (5, 10)


def rows_of(values: dict[tuple[str, str, str], float], seeds: int = 3) -> pd.DataFrame:
    """Rows of "s" by (method, a_mode, units), at both numbers of evaluations, and the floor, which is 1."""
    base: dict[str, Any] = {"dataset": "s", "prior": "mixture", "beta": 2, "solver": "exponential", "train_steps": 9}
    paths = {"bend_x": 1.0, "bend_y": 2.0, "path_energy": 3.0, "net_bend_x": 4.0, "net_bend_y": 5.0}
    rows = [
        base | paths | {"method": m, "a_mode": a or None, "units": u, "seed": s, "nfe": n, "pmf_rmse": v + 0.01 * s}
        for (m, a, u), v in values.items() for s in range(seeds) for n in FEW
    ]  # fmt: skip
    real = [{"dataset": "s", "method": "real", "seed": s, "nfe": 0, "pmf_rmse": 1.0} for s in range(seeds)]
    other = {**rows[0], "dataset": "moons-8Y"}
    return units.reported(pd.DataFrame([*rows, *real, other]), ["s"], FEW)


@pytest.mark.parametrize(("plain", "standing"), [(1.0, "first"), (1.2, "level"), (1.6, "behind")])
def test_left_over(plain: float, standing: str) -> None:
    """CLD on standardised data against the best row with A, whichever that is; SGM and raw CLD have no say."""
    rows = rows_of({
        ("CLD", "zero", "standardised"): plain, ("CLD", "zero", "raw"): 0.5, ("SGM", "zero", "standardised"): 0.5,
        ("VSCLD", "adaptive", "raw"): 1.4, ("VSULD", "steered", "standardised"): 1.2,
    })  # fmt: skip
    table = units.left_over(rows)
    assert table.evaluations.tolist() == [5, 10]
    assert set(table["best with A"]) == {"steered VSULD, standardised"}
    assert set(table["CLD is"]) == {standing}
    assert table.ratio.tolist() == [pytest.approx((plain + 0.01) / 1.21)] * 2


def test_tables() -> None:
    """A column a number of evaluations; peers start from a Gaussian where no source is named; paths once a prior."""
    rows = rows_of({("CLD", "zero", "standardised"): 1.0, ("ot-cfm", "", "raw"): 2.0})
    rows.loc[rows.method == "ot-cfm", "prior"] = None
    rows = units.reported(rows, ["s"], FEW)
    table = units.few(rows)
    assert list(table.columns) == ["dataset", "name", "units", "prior", "setting", "5", "10"]
    assert table.name.tolist() == ["CLD", "ot-cfm"]
    assert table.prior.tolist() == ["mixture", "gaussian"]
    assert table["5"].tolist() == ["1.010 ± 0.010 (3)", "2.010 ± 0.010 (3)"]
    paths = units.paths(rows)
    assert paths.bend_y.tolist() == ["2.00 ± 0.00 (3)"] * 2
    assert paths.net_path_energy.tolist() == ["– (0 of 3 finite)"] * 2


def test_mixture_scores_of_different_sizes_have_rows_of_their_own() -> None:
    rows = rows_of({("VSCLD", "mixture", "standardised"): 1.0, ("CLD", "zero", "standardised"): 2.0})
    small, large = (rows.assign(components=rows.components.where(rows.a_mode != "mixture", n)) for n in (8.0, 50.0))
    paths = units.paths(pd.concat([small, large.assign(path_energy=4.0)[large.a_mode == "mixture"]]))
    assert paths.components.tolist() == ["", 8, 50]
    assert paths.path_energy.tolist() == ["3.00 ± 0.00 (3)"] * 2 + ["4.00 ± 0.00 (3)"]


def test_nothing_yet() -> None:
    rows = units.reported(pd.DataFrame(), ["s"], FEW)
    assert [len(table) for table in (rows, units.few(rows), units.paths(rows), units.left_over(rows))] == [0] * 4
