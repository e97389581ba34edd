"""repro.studies.units: rows of the family and of its peers on data in every unit, and the choice among settings."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
import torch

from repro.grid.runs import Run
from repro.studies import toys, unit_choices, units
from repro.studies.sets.toys import toy
from vsmd import priors

PEERS = unit_choices.peers
PLAN: list[dict[str, Any]] = [
    {"prior": "moments", "solver": "exponential", "evaluations": [3, 4], "denoise": True},
    {"prior": "mixture", "solver": "heun", "evaluations": [4], "grid_power": 1.5},
]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toys, "PATH_POINTS", 40)
    monkeypatch.setattr(toys, "PRIOR_POINTS", 500)
    monkeypatch.setattr(priors, "MIXTURE_DRAWS", 2_000)


def test_the_family() -> None:
    rows = units.run("spiral-8Y", "CLD", 1, 2, PLAN, units="whitened", R=1, steps=2, samples=100).tables["units"]
    assert [(r["prior"], r["solver"], r["nfe"], r["grid_power"]) for r in rows] == [
        ("moments", "exponential+denoise", 3, 2), ("moments", "exponential+denoise", 4, 2), ("mixture", "heun", 4, 1.5),
    ]  # fmt: skip
    assert all(tuple(row) == units.COLUMNS for row in rows)
    first = rows[0]
    assert (first["units"], first["weighting"], first["a_mode"]) == ("whitened", "score", "zero")
    assert first["bend_y"] > 2 * first["net_bend_y"]  # the stretched axis, in its own units and in the network's


@pytest.mark.parametrize(("method", "name", "unit"), [("ot-cfm-standardised", "ot-cfm", "standardised"),
                                                      ("i-cfm", "i-cfm", "raw")])  # fmt: skip
def test_flow_matching(method: str, name: str, unit: str) -> None:
    plan = [{"solver": "midpoint", "evaluations": [4], "grid_power": 1.5}]
    (row,) = units.run_flow("spiral-8Y", method, 0, plan, source="mixture", steps=2, samples=100).tables["units"]
    assert (row["method"], row["units"], row["prior"], row["solver"], row["nfe"], row["grid_power"]) == (
        name, unit, "mixture", "midpoint", 4, 1.5,
    )  # fmt: skip
    assert tuple(row) == units.COLUMNS
    assert (row["net_bend_y"] == row["bend_y"]) == (unit == "raw")


def test_edm() -> None:
    plan = [{"solver": "heun", "evaluations": [5, 10], "sigma_max": 20}]
    rows = units.run_edm("spiral-8Y", "edm-whitened", 0, plan, steps=2, samples=100).tables["units"]
    assert [(r["method"], r["units"], r["solver"], r["nfe"]) for r in rows] == [
        ("edm", "whitened", "heun", 5), ("edm", "whitened", "heun", 9),
    ]  # fmt: skip
    assert (rows[0]["path_energy"], rows[0]["grid_power"], rows[0]["sigma_max"]) == (None, 7, 20)


def test_the_floor() -> None:
    (row,) = units.baseline("spiral-8Y", "real", 0, 1_000).tables["units"]
    assert tuple(row) == units.COLUMNS
    assert row["pmf_rmse"] > 0


def test_development_sets_are_stretched() -> None:
    x = toy("moons-8Y")(5, torch.Generator().manual_seed(0))
    assert torch.equal(x, toy("moons")(5, torch.Generator().manual_seed(0)) * torch.tensor([1.0, 8.0]))


def test_the_choice() -> None:
    """The least mean log over both sets and numbers; not one that diverged once, nor one that is not complete."""
    floors = pd.Series({"moons-8Y": 1.0, "scurve-8Y": 2.0})

    def rows(beta: float, values: list[float]) -> list[dict[str, Any]]:
        places = [(d, n) for d in floors.index for n in (10, 20)]
        setting = dict.fromkeys(units.SETTING) | {"method": "CLD", "units": "raw", "beta": beta}
        return [{**setting, "dataset": d, "nfe": n, "pmf_rmse": v} for (d, n), v in zip(places, values)]

    table = pd.DataFrame(
        rows(2, [2, 2, 4, 4]) + rows(5, [1, 1, 2, 6]) + rows(10, [1, 1, 2, math.nan]) + rows(20, [1, 1, 2])
    )
    best = units.chosen(table, floors, by=("method", "units"))
    assert best.beta.tolist() == [5]
    assert best.gap.tolist() == [pytest.approx(math.log(3) / 4)]


def test_rounds_of_choices() -> None:
    """Every candidate once; what wins is run with its settings, two priors of one training in one run."""
    runs = unit_choices.first(10, 100)
    assert len(runs) == (8 * 2 + 2) * 4 * 2
    assert {run.config["components"] for run in runs if "components" in run.config} == {8, 50}
    assert len(set(runs)) == len(runs)
    setting = dict.fromkeys(units.SETTING) | {
        "method": "VSCLD", "units": "standardised", "a_mode": "steered", "beta": 2, "weighting": "unit",
        "learning_rate": 4e-3, "grid_power": 1.5, "solver": "exponential+denoise", "prior": "moments",
        "schedule": "constant",
    }  # fmt: skip
    flow = {"method": "ot-cfm", "units": "raw", "a_mode": "", "prior": "mixture", "solver": "ab2"}
    best = pd.DataFrame([
        setting, setting | {"prior": "mixture", "solver": "exponential"},
        setting | flow | {"beta": None, "weighting": ""},
        setting | flow | {"method": "edm", "prior": "", "beta": None, "solver": "heun", "sigma_max": 20.0},
    ])  # fmt: skip
    assert len(unit_choices.second(best[:2], 10, 100)) == 3 * 2
    mixture = setting | {"a_mode": "mixture", "components": 8.0, "prior": "gaussian"}
    (run,) = unit_choices.final(pd.DataFrame([mixture]), ["spiral-8Y"], [0], 10, 100)
    assert (run.config["a_mode"], run.config["components"]) == ("mixture", 8)
    trained, ot, edm = unit_choices.final(best, ["spiral-8Y"], [0], 10, 100)
    assert trained.config["a_mode"] == "steered"
    assert (trained.config["R"], trained.config["beta"], trained.config["weighting"]) == (1, 2, "unit")
    assert [(line["prior"], line["denoise"]) for line in trained.config["plan"]] == [
        ("moments", True), ("mixture", False),
    ]  # fmt: skip
    assert (ot.config["method"], ot.config["source"], ot.config["plan"][0]["solver"]) == ("ot-cfm", "mixture", "ab2")
    assert ot.config["plan"][0]["grid_power"] == 1.5
    assert (edm.function, edm.config["method"]) == ("repro.studies.units:run_edm", "edm")
    assert edm.config["plan"][0]["sigma_max"] == 20
    assert {run.config["method"] for run in unit_choices.peers(10, 100)} == {
        "i-cfm", "ot-cfm", "i-cfm-standardised", "ot-cfm-standardised", "edm", "edm-standardised",
    }  # fmt: skip


def test_settings_that_nobody_has_chosen() -> None:
    """Runs of small profiles: the plain method in other units, with A, peers, and the floor; each can be drawn."""
    runs = unit_choices.brief(["spiral-8Y"], [0], 2, 100)
    assert [run.config.get("method", run.config.get("kind")) for run in runs] == [
        "real", "gaussian", "CLD", "VSCLD", "VSCLD", "ot-cfm-standardised", "edm-standardised",
    ]  # fmt: skip
    assert [run.config["a_mode"] for run in runs if "a_mode" in run.config] == ["steered"]
    for run in runs[-2:]:
        rows = getattr(units, run.function.split(":")[1])(**run.config).tables["units"]
        assert [row["nfe"] for row in rows] == ([5, 9, 19, 59] if "edm" in run.config["method"] else [5, 10, 20, 60])


class Memory:
    """A store in this process: rows by run, empty columns left out as files leave them."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def execute(self, runs: list[Run], store: Any, workers: int | None = None) -> None:
        for run in runs:
            if run.key not in self.rows:
                self.rows[run.key] = getattr(units, run.function.split(":")[1])(**run.config).tables["units"]

    def table(self, name: str, runs: list[Run]) -> pd.DataFrame:
        return pd.DataFrame([row for run in runs for row in self.rows[run.key]]).dropna(axis=1, how="all")


def test_the_whole_study(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rounds, the choices, and their rows on a reported set; a second call runs nothing again."""
    store, small = Memory(), unit_choices.Budget(2, 200)
    monkeypatch.setattr(unit_choices, "execute", store.execute)
    monkeypatch.setattr(unit_choices, "METHODS", {"CLD": {"method": "CLD", "R": 1}})
    for name, values in {
        "BETAS": {"constant": (2,)},
        "RATES": (8e-3,),
        "SCALED": ("standardised",),
        "EVALUATIONS": [10, 20],
    }.items():
        monkeypatch.setattr(unit_choices, name, values)
    monkeypatch.setattr(unit_choices, "peers", lambda steps, samples: [
        run for run in PEERS(steps, samples) if run.config["method"] in ("ot-cfm", "edm")
        and run.config.get("source") != "mixture"
    ])  # fmt: skip
    arguments: Any = (store, ["spiral-8Y"], [0], small, small)
    best, rows = unit_choices.study(*arguments)
    assert {(r.method, r.prior) for r in best.itertuples()} == {
        ("CLD", "moments"), ("CLD", "mixture"), ("ot-cfm", "gaussian"), ("edm", ""),
    }  # fmt: skip
    assert set(rows.method) == {"CLD", "ot-cfm", "edm", "real", "gaussian", "mixture-32"}
    assert set(rows.dataset) == {"spiral-8Y", *units.DEVELOPMENT}
    monkeypatch.setattr(units, "run", None)
    pd.testing.assert_frame_equal(unit_choices.study(*arguments)[1], rows)
