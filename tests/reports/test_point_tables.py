"""repro.reports.points: tables, picture and advice from rows whose order is known; and from none at all."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from repro.grid import Store
from repro.grid.store import READ
from repro.reports import families, points
from repro.reports.legible import faults

SEEDS, FEW = (0, 1, 2), (5, 10)
BASE = {
    "part": "test", "sw2_floor": 1.0, "energy": 1.0, "energy_floor": 0.5, "auc": 0.6, "auc_floor": 0.5,
    "tail_error": 0.1, "tail_error_floor": 0.1, "memorised": 0.5, "train_seconds": 3.0, "n_train": 100,
}  # fmt: skip
OURS = {"units": "whitened", "prior": "moments", "learning_rate": 2e-3, "weighting": "unit", "train_steps": 9}


def rows_of(dataset: str, ours: float, peer: float, mixture: float) -> list[dict[str, Any]]:
    """Two of the family, one chosen, two peers and a mixture, whose sliced W2 is what it is called with."""
    settings: list[tuple[dict[str, Any], float]] = [
        ({"method": "CLD", "a_mode": "zero", "beta": 5, "selected": 1, "solver": "exponential"} | OURS, ours),
        ({"method": "VSCLD", "a_mode": "steered", "beta": 2, "solver": "exponential"} | OURS, ours + 1),
        ({"method": "i-cfm", "units": "whitened", "solver": "ab2", "train_steps": 9}, peer),
        ({"method": "edm", "units": "raw", "solver": "heun", "sigma_max": 80, "train_steps": 9}, peer + 1),
    ]
    rows = [
        BASE | {"dataset": dataset, "seed": s, "nfe": n - (row["method"] == "edm"), "sw2": v + 0.01 * s + 1 / n} | row
        for row, v in settings for s in SEEDS for n in FEW
    ]  # fmt: skip
    plain = {"dataset": dataset, "method": "mixture-16", "nfe": 0}
    return rows + [BASE | plain | {"seed": s, "sw2": mixture + 0.01 * s} for s in SEEDS]


@pytest.fixture
def rows() -> pd.DataFrame:
    table = [*rows_of("a", 2, 3, 9), *rows_of("b", 3, 2, 9), *rows_of("c", 2, 2, 1), *rows_of("d", 1, 4, 9)]
    validation = {**table[0], "part": "validation", "sw2": 0.1}
    return points.reported(pd.DataFrame([*table, validation]), FEW)


def test_named(rows: pd.DataFrame) -> None:
    """Names, kinds and settings in words; EDM's nine evaluations count as ten; validation rows are not reported."""
    assert rows.sw2.min() > 0.5
    names = rows.drop_duplicates("name").set_index("name")
    assert names.kind.to_dict() == {
        "CLD": "family", "steered VSCLD": "family", "i-cfm": "peer", "edm": "peer", "mixture-16": "plain",
    }  # fmt: skip
    assert names.setting["CLD"] == "whitened, β = 5, moments prior, exponential, rate 0.002, weight unit"
    assert names.setting["edm"] == "raw, heun, σ to 80"
    assert sorted(rows[rows.name == "edm"].evaluations.unique()) == [5, 10]
    assert rows[rows.kind == "plain"].evaluations.unique().tolist() == [0]


def test_the_longest_training_counts() -> None:
    short = [row | {"train_steps": 3, "sw2": 0.0} for row in rows_of("a", 2, 3, 9)[:24]]
    table = points.reported(pd.DataFrame([*rows_of("a", 2, 3, 9), *short]), FEW)
    assert (table.sw2 > 0.5).all()


def test_a_table_a_set(rows: pd.DataFrame) -> None:
    table = points.of_set(rows, "a")
    assert table.name.tolist()[::2] == ["CLD (chosen)", "steered VSCLD", "edm", "i-cfm", "mixture-16"]
    first = table.iloc[0]
    assert (first.evaluations, first.sw2, first.energy) == (5, "2.210 ± 0.010 (3)", "2.00 ± 0.00 (3)")
    assert first.nll == "–"
    wide = points.summary(rows, 10).set_index("dataset")
    assert wide.chosen["a"] == "2.110 ± 0.010 (3)"
    assert wide.mixture["c"] == "1.010 ± 0.010 (3)"
    assert "steered VSCLD" not in wide


def test_duels(rows: pd.DataFrame) -> None:
    """The family's choice against the best peer, by Welch's test; a mixture where it suffices."""
    table = points.duels(rows, 10).set_index("dataset")
    assert table.standing.to_dict() == {"a": "first", "b": "behind", "c": "level", "d": "first"}
    assert set(table.peer) == {"i-cfm"}
    assert table.gain["a"] == pytest.approx(math.log(3.11 / 2.11))
    assert table.enough.to_dict() == {"a": False, "b": False, "c": True, "d": False}


def test_advice(rows: pd.DataFrame) -> None:
    """Each case in words, those for something else among them; a correlation is spoken of where it is clear."""
    table = points.duels(rows, 10)
    laws = pd.DataFrame({"dataset": list("abcd"), "anisotropy": [3, 1, 2, 4.0], "dim": 2, "train": [1, 2, 3, 4],
                         "non_gaussianity": 0.1, "prior_kl": 1.0})  # fmt: skip
    predicted = points.predictors(table, laws).set_index("known before training")
    assert (predicted.rho["anisotropy"], predicted.n["anisotropy"]) == (pytest.approx(1), 4)
    assert math.isnan(predicted.rho["dimensions"])
    said = points.advice(table, predicted.reset_index(), 10).set_index("case").advice
    assert said["in all"].endswith("first on 2, level on 1, behind on 1 of 4 sets, 10 evaluations")
    assert said["like b"].startswith("take something else: i-cfm; ours is 47% farther")
    assert said["like a, d"].startswith("CLD: first; whitened, β = 5")
    assert "take something else: mixture-16 is as near without any network" in said.tolist()
    assert said["the larger: anisotropy"] == "the family gains more (rank correlation 1.00, n = 4)"


def test_one_seed_decides_nothing(rows: pd.DataFrame) -> None:
    table = points.duels(rows[rows.seed == 0], 10)
    assert set(table.standing) == {families.ONE_SEED}


def test_the_picture(rows: pd.DataFrame) -> None:
    """Of the sets that are complete: a line a method and the choice, the mixture across; legible."""
    partial = rows[(rows.dataset != "b") | (rows.name != "edm")]
    assert points.complete(partial) == ["a", "c", "d"]
    figure = points.decision(partial)
    left, right = figure.axes
    ranks = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in left.lines}
    assert ranks["CLD"] == ranks["the family's choice"] == [pytest.approx(7 / 6)] * 2
    assert left.get_title() == "3 sets"
    legend = right.get_legend()
    assert legend is not None
    assert {t.get_text() for t in legend.get_texts()} >= {"mixture", "edm", "the family's choice"}
    assert faults(figure) == []
    plt.close(figure)


def test_the_choices() -> None:
    best = pd.DataFrame([
        {"dataset": "a", "method": "edm", "a_mode": "", "gap": 0.1, "solver": "heun", "selected": False},
        {"dataset": "a", "method": "CLD", "a_mode": "zero", "gap": 0.2, "solver": "heun", "selected": True},
    ])  # fmt: skip
    table = points.choices(best)
    assert table.name.tolist() == ["CLD", "edm"]
    assert table.selected.tolist() == ["chosen", ""]


def test_a_table_on_its_way(tmp_path: Path) -> None:
    """No rows, and the notebook that asked depends on the table all the same."""
    assert families.stored(Store(tmp_path), "on_its_way").empty
    assert "on_its_way" in READ


def test_nothing_yet() -> None:
    """Every table copes with a store that has no row."""
    rows = points.reported(pd.DataFrame(), FEW)
    assert len(rows) == 0
    assert points.complete(rows) == []
    assert len(points.summary(rows, 10)) == 0
    table = points.duels(rows, 10)
    predicted = points.predictors(table, pd.DataFrame())
    assert predicted.n.unique().tolist() == [0]
    assert points.advice(table, predicted, 10).advice.tolist() == [
        "rows are to come: nothing is advised before they are there"
    ]
