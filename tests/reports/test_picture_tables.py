"""repro.reports.pictures: ends, flattening, standings and curves, from rows whose order is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from repro.reports import pictures


def rows_of(values: dict[tuple[str, str], tuple[float, float]], metric: str = "FD-EffNet") -> pd.DataFrame:
    """Rows by (method, a_mode) with values half way and at the end, three seeds, 20 evaluations; at the end 10 too."""
    base: dict[str, Any] = {"dataset": "s", "part": "test", "metric": metric, "floor": 1.0, "solver": "heun"}
    rows = []
    for (method, a_mode), pair in values.items():
        for seed in range(3):
            for steps, value in zip((50, 100), pair, strict=True):
                for n in (20, 10)[: 1 + (steps == 100)]:
                    about = {"method": method, "a_mode": a_mode or None, "basis": "cosine" if a_mode else None}
                    seen = {"seed": seed, "train_steps": steps, "images_seen": 64 * steps, "nfe": n - (method == "edm")}
                    rows.append(base | about | seen | {"value": value + 0.1 * seed + 20 - n})
    return pd.DataFrame(rows)


VALUES = {("CLD", "zero"): (9.0, 5.0), ("VSCLD", "steered"): (9.0, 8.0), ("edm", ""): (9.0, 8.9)}


def test_ends() -> None:
    chosen = rows_of(VALUES).assign(part="validation")
    table = pictures.ends(pictures.reported(pd.concat([rows_of(VALUES), chosen]), [10, 20]))
    assert list(table.columns) == ["dataset", "name", "basis", "setting", "evaluations", "FD-EffNet"]
    assert table.name.tolist() == ["CLD", "CLD", "steered VSCLD", "steered VSCLD", "edm", "edm", "test images"]
    assert table.evaluations.tolist() == [10, 20, 10, 20, 10, 20, ""]
    assert table["FD-EffNet"].tolist()[1] == "5.10 ± 0.10 (3)"
    assert table["FD-EffNet"].tolist()[-1] == 1


def test_flattened() -> None:
    table = pictures.flattened(pictures.reported(rows_of(VALUES), [10, 20]))
    assert table.name.tolist() == ["CLD", "steered VSCLD", "edm"]
    assert table["fell by"].tolist() == [pytest.approx(4 / 9.1), pytest.approx(1 / 9.1), pytest.approx(0.1 / 9.1)]
    assert table.flat.tolist() == [False, False, True]


@pytest.mark.parametrize(("theirs", "standing"), [(8.9, "first"), (5.05, "level"), (4.0, "behind")])
def test_standings(theirs: float, standing: str) -> None:
    (row,) = pictures.standings(
        pictures.reported(rows_of(VALUES | {("edm", ""): (9.0, theirs)}), [10, 20]), 20
    ).to_dict("records")
    assert (row["family"], row["peer"], row["standing"]) == ("CLD", "edm", standing)


def test_nothing_is_stored_yet() -> None:
    rows = pictures.reported(pd.DataFrame(), [10, 20])
    assert [len(f) for f in (pictures.ends(rows), pictures.flattened(rows), pictures.standings(rows, 20))] == [0, 0, 0]


def test_curves() -> None:
    fig = pictures.curves(pictures.reported(rows_of(VALUES), [10, 20]))
    (ax,) = fig.axes
    assert [line.get_label() for line in ax.lines] == ["CLD", "steered VSCLD", "edm", "test images"]
    assert np.asarray(ax.lines[0].get_xdata()).tolist() == [3_200, 6_400]
    assert np.asarray(ax.lines[0].get_ydata()).tolist() == pytest.approx([9.1, 5.1])
