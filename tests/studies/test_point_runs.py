"""repro.studies.points: rows of the family, its peers and what needs no network, and the choice on validation parts."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from repro.grid.runs import Run
from repro.studies import point_choices, points
from vsmd import priors
from vsmd.data.points import PointSet

PLAN: list[dict[str, Any]] = [
    {"prior": "moments", "solver": "exponential", "evaluations": [3], "denoise": True},
    {"prior": "mixture", "solver": "heun", "evaluations": [4]},
]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(300, 3, generator=torch.Generator().manual_seed(0)) @ torch.tensor(
        [[1.0, 2.0, 0.0], [0.0, 5.0, 1.0], [0.0, 0.0, 0.1]]
    )
    parts = PointSet("set", x[:150], x[150:220], x[220:], ("a", "b", "c"), "normal")
    monkeypatch.setattr(points, "load", lambda name: parts)
    monkeypatch.setattr(points, "TRAINING", {"batch_size": 32})
    monkeypatch.setattr(points, "SCORED", 4)
    monkeypatch.setattr(priors, "MIXTURE_DRAWS", 2_000)
    monkeypatch.setattr(points, "NETWORK", {"name": "mlp", "width": 8, "depth": 1})


def test_the_family() -> None:
    quick = points.run("set", "CLD", 0, 5, PLAN[:1], R=1, steps=2).tables["points"][0]
    assert (quick["part"], quick["n_samples"], quick["auc"], quick["nll"]) == ("validation", 70, None, None)
    assert quick["energy"] > 0  # and nothing that is not chosen by
    rows = points.run("set", "CLD", 0, 5, PLAN, "test", R=1, steps=2, likelihood=True).tables["points"]
    assert [(r["prior"], r["solver"], r["nfe"]) for r in rows] == [
        ("moments", "exponential+denoise", 3), ("mixture", "heun", 4),
    ]  # fmt: skip
    for row in rows:
        assert tuple(row) == points.COLUMNS
        assert (row["dataset"], row["part"], row["dim"], row["n_train"], row["n_samples"]) == (
            "set", "test", 3, 150, 80,
        )  # fmt: skip
        assert all(row[m] >= 0 and row[f"{m}_floor"] > 0 for m in ("sw2", "energy", "auc", "tail_error"))
        assert math.isfinite(row["nll"])
    assert rows[0]["nll"] != rows[1]["nll"]


def test_peers() -> None:
    plan = [{"solver": "ab2", "evaluations": [4]}]
    (flow,) = points.run_flow("set", "ot-cfm-whitened", 0, plan, source="mixture", steps=2).tables["points"]
    levels = [{"solver": "heun", "evaluations": [5], "grid_power": 3}]
    (edm,) = points.run_edm("set", "edm", 0, levels, part="test", steps=2).tables["points"]
    assert (flow["method"], flow["units"], flow["prior"], flow["nfe"]) == ("ot-cfm", "whitened", "mixture", 4)
    assert (edm["method"], edm["units"], edm["nfe"], edm["part"], edm["n_samples"]) == ("edm", "raw", 5, "test", 80)


@pytest.mark.parametrize(
    ("method", "value", "name"),
    [
        ("gaussian", 0, "gaussian"),
        ("mixture", 2, "mixture-2"),
        ("resampled", 0.1, "resampled-0.1"),
        ("real", 0, "real"),
    ],
)
def test_without_a_network(method: str, value: float, name: str) -> None:
    (row,) = points.run_plain("set", method, 0, value, part="test").tables["points"]
    assert (row["method"], row["nfe"]) == (name, 0)
    assert 0 < row["sw2"] < 1.5 * row["sw2_floor"] + 0.1  # normal data: every one of them is near
    if method == "real":  # copies, of which only so many training points are looked at as there are held-out ones
        assert row["memorised"] > 0.55


def test_divergence_is_a_row() -> None:
    row = points.Measured("set", "test", 0).row(torch.full((5, 3), math.nan), method="CLD", nfe=3)
    assert math.isnan(row["sw2"])
    assert math.isnan(row["memorised"])
    with pytest.raises(ValueError, match="part='train'"):
        points.Measured("set", "train", 0)


def test_the_choice() -> None:
    """By both measures over their floors on validation rows, complete and finite ones; test rows are not looked at."""

    def rows(method: str, beta: float | None, sw2: list[float], part: str = "validation") -> list[dict[str, Any]]:
        base = dict.fromkeys(points.COLUMNS) | {"dataset": "set", "part": part, "method": method, "beta": beta}
        measures = {"sw2_floor": 1.0, "energy": 2.0, "energy_floor": 1.0}
        return [base | measures | {"sw2": v, "nfe": nfe} for v, nfe in zip(sw2, (10, 20))]

    table = pd.DataFrame(
        rows("CLD", 2, [2, 2]) + rows("CLD", 5, [1.5, 2]) + rows("CLD", 10, [1, math.nan]) + rows("CLD", 20, [1])
        + rows("CLD", 2, [1, 1], "test")
    )  # fmt: skip
    plain = [r | {"nfe": 0} for r in rows("mixture-4", None, [3]) + rows("mixture-16", None, [2])]
    best = point_choices.chosen(pd.concat([table, pd.DataFrame(plain)]), by=("dataset",))
    assert best.beta.tolist() == [5]
    assert best.gap.tolist() == [pytest.approx((math.log(1.5) + math.log(2)) / 2 + math.log(2))]
    each = point_choices.chosen(pd.concat([table, pd.DataFrame(plain)]))
    assert sorted(each.method) == ["CLD", "mixture-16", "mixture-4"]


def test_the_whole_study(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both rounds and the peers on the validation part; one setting a method on the test part, and what is plain."""
    made: dict[str, list[dict[str, Any]]] = {}

    class Memory:
        def entries(self, name: str) -> dict[str, Any]:
            return {}

        def remove(self, keys: list[str]) -> None:
            assert keys == []

        def table(self, name: str, runs: list[Run]) -> pd.DataFrame:
            return pd.DataFrame([row for run in runs for row in made[run.key]]).dropna(axis=1, how="all")

    def execute(runs: list[Run], store: Any, workers: int | None = None) -> None:
        for run in runs:
            if run.key not in made:
                made[run.key] = getattr(points, run.function.split(":")[1])(**run.config).tables["points"]

    few = {"CLD", "i-cfm", "i-cfm-whitened", "edm", "mixture", "resampled"}

    def offered(run: Run) -> Run | None:
        config = run.config
        return run if config["method"] in few and config.get("source") != "mixture" else None

    monkeypatch.setattr(point_choices, "execute", execute)
    monkeypatch.setattr(point_choices, "METHODS", {"CLD": {"method": "CLD", "R": 1}})
    for name, values in {"BETAS": {"constant": (2,)}, "RATES": (2e-3,), "COMPONENTS": (1, 2)}.items():
        monkeypatch.setattr(point_choices, name, values)
    store: Any = Memory()
    best, rows = point_choices.study(store, "set", [0], 2, 2, offered=offered)
    assert [method.partition("-")[0] if method[0] in "mr" else method for method in best.method] == [
        "CLD", "edm", "i-cfm", "mixture", "resampled",
    ]  # fmt: skip
    assert best[best.selected].method.tolist() == ["CLD"]
    assert set(rows[rows.selected == 1].method) == {"CLD"}
    assert set(rows.part) == {"test"}
    assert set(rows.method) == {*best.method, "real", "gaussian"}


def test_one_of_the_family_is_selected() -> None:
    """On each set the one with the least gap, whatever the peers have; of each method and kind one is chosen."""

    def rows(dataset: str, method: str, a_mode: str | None, sw2: float, solver: str | None) -> list[dict[str, Any]]:
        base = dict.fromkeys(points.COLUMNS) | {"dataset": dataset, "part": "validation", "method": method}
        base |= {"a_mode": a_mode, "solver": solver, "sw2": sw2, "sw2_floor": 1.0, "energy": 1.0, "energy_floor": 1.0}
        return [base | {"nfe": nfe} for nfe in ((10, 20) if solver else (0,))]

    table = pd.DataFrame([
        *rows("a", "CLD", "zero", 2, "heun"), *rows("a", "VSCLD", "steered", 3, "heun"),
        *rows("b", "CLD", "zero", 4, "heun"), *rows("b", "VSCLD", "steered", 3, "heun"),
        *rows("a", "edm", None, 1, "heun"), *rows("b", "real", None, 1, None),
        *rows("a", "mixture-4", None, 2, None), *rows("a", "mixture-16", None, 1, None),
    ])  # fmt: skip
    best = point_choices.choices(table)
    assert sorted(zip(best.dataset, best.method)) == [
        ("a", "CLD"), ("a", "VSCLD"), ("a", "edm"), ("a", "mixture-16"), ("b", "CLD"), ("b", "VSCLD"), ("b", "real"),
    ]  # fmt: skip
    assert sorted(zip(best[best.selected].dataset, best[best.selected].method)) == [("a", "CLD"), ("b", "VSCLD")]


def test_candidates_and_finals() -> None:
    first, peers = point_choices.first("set", 10), point_choices.peers("set", 10)
    assert len(first) == (3 * 2 + 4 + 2) * 3  # plain methods and mixture scores in two units, variational ones in one
    assert {run.config["units"] for run in first if run.config["method"] == "VSULD"} == {"standardised"}
    assert {run.config["components"] for run in first if "components" in run.config} == {8}
    assert len({run.key for run in first + peers}) == len(first) + len(peers)
    setting = dict.fromkeys(points.SETTING) | {
        "dataset": "set", "method": "VSCLD", "units": "whitened", "a_mode": "steered", "beta": 5, "prior": "moments",
        "weighting": "unit", "learning_rate": 1e-3, "solver": "exponential+denoise", "grid_power": 2,
        "schedule": "constant",
    }  # fmt: skip
    best = pd.DataFrame([
        setting, setting | {"method": "ot-cfm", "solver": "ab2", "prior": "mixture"},
        setting | {"method": "mixture-16", "units": ""},
    ])  # fmt: skip
    others = point_choices.second(best[:1], 10)
    assert [(r.config["learning_rate"], r.config["weighting"], r.config["plan"][0]["prior"]) for r in others] == [
        (1e-3, "unit", "moments"), (4e-3, "unit", "moments"), (2e-3, "score", "moments"), (2e-3, "unit", "mixture"),
    ]  # fmt: skip
    others = point_choices.second_of_peers(best, 10)
    assert [(r.config["method"], r.config["source"], r.config["learning_rate"]) for r in others] == [
        ("ot-cfm-whitened", "mixture", 1e-3), ("ot-cfm-whitened", "mixture", 4e-3),
    ]  # fmt: skip
    runs = point_choices.final(best, [0, 1], 10)
    assert [(r.function.split(":")[1], r.config["seed"]) for r in runs] == [
        ("run", 0), ("run", 1), ("run_flow", 0), ("run_flow", 1), ("run_plain", 0), ("run_plain", 1),
        ("run_plain", 0), ("run_plain", 1), ("run_plain", 0), ("run_plain", 1),
    ]  # fmt: skip
    assert all(run.config["part"] == "test" for run in runs)
    assert runs[0].config["plan"][0]["denoise"] is True
    assert "chosen" not in runs[0].config  # the key of what nobody chose is what it was
    (chosen,) = (r for r in point_choices.final(best[:1].assign(selected=True), [0], 10) if r.config.get("chosen"))
    store: Any = SimpleNamespace(entries=lambda name: {
        key: {"config": {"dataset": dataset, "chosen": mark}}
        for key, dataset, mark in (
            (chosen.key, "set", True), ("old", "set", True), ("other", "b", True), ("no", "set", None))
    })  # fmt: skip
    assert point_choices.superseded(store, [chosen]) == ["old"]
    assert (runs[4].config["method"], runs[4].config["value"]) == ("mixture", 16)
