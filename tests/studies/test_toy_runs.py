"""The toy runs: a row for every line of the plan, evaluations counted, divergence shown, choices made as said."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from repro.studies import choices, toys
from repro.studies.sets.toys import toy
from vsmd import random
from vsmd.model import Model

PLAN: list[dict[str, Any]] = [
    {"prior": "gaussian", "solver": "heun", "evaluations": [4, 6]},
    {"prior": "mixture", "solver": "euler", "evaluations": [5]},
    {"prior": "mixture", "solver": "rk45", "evaluations": [1]},
]
HEUN: list[dict[str, Any]] = [{"prior": "gaussian", "solver": "heun", "evaluations": [4]}]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toys, "W2_POINTS", 50)
    monkeypatch.setattr(toys, "PATH_POINTS", 60)
    monkeypatch.setattr(toys, "PRIOR_POINTS", 500)
    monkeypatch.setattr(choices, "HELD_OUT", 20_000)
    monkeypatch.setattr(choices, "SAMPLES", 300)


@pytest.mark.parametrize("a_mode", [None, "steered"])
def test_one_run(a_mode: str | None) -> None:
    made = toys.run(
        "spiral-8Y", "VSCLD", 5, 1, "constant", 3, PLAN, steps=6, samples=400, checkpoints=2, points=20, a_mode=a_mode
    )
    mode = a_mode or "adaptive"
    rows = made.tables["toys"]
    assert [(r["prior"], r["solver"], r["nfe"]) for r in rows[:3]] == [
        ("gaussian", "heun", 4), ("gaussian", "heun", 6), ("mixture", "euler", 5),
    ]  # fmt: skip
    assert rows[3]["nfe"] > 6  # counted: an adaptive solver takes what it needs
    for row in rows:
        assert list(row) == toys.TOYS_COLUMNS
        assert row["a_mode"] == mode
        assert 0 < row["pmf_rmse"] < 0.1
        assert (row["w2"] is not None) == ((row["prior"], row["nfe"]) == ("gaussian", 6))
    assert rows[0]["straightness_x"] == rows[1]["straightness_x"] > 0
    assert rows[2].get("straightness_x") is None  # measured from the main row's prior
    assert [r["train_steps"] for r in made.tables["toys_curves"]] == [3, 6]
    assert ("toys_adaptation" in made.tables) == (a_mode is None)
    assert made.points is not None
    assert made.points[f"spiral-8Y_VSCLD-{mode}-5_3"].shape == (20, 2)


def test_denoised_samples_are_rows_of_their_own() -> None:
    """Named so, within the same evaluations, and not what the solver leaves; as main row, under a name of its own."""
    plan = [{**HEUN[0], "evaluations": [5], "denoise": True}, *HEUN]
    result = toys.run("spiral-8Y", "SGM", 5, None, "constant", 0, plan, steps=1, samples=100, points=10)
    clean, left = result.tables["toys"]
    assert [(r["solver"], r["nfe"]) for r in (clean, left)] == [("heun+denoise", 5), ("heun", 4)]
    assert clean["gen_std_x"] != left["gen_std_x"]
    assert clean["w2"] is not None
    assert list(result.points or {}) == ["spiral-8Y_SGM-zero-5_0+denoise"]


def test_divergence_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A solver that gives up midway leaves a row that says so: all outside, moments nan, evaluations as asked."""

    def refuse(model: Model, n: int, *_: object, **__: object) -> torch.Tensor:
        sample(model, n, "heun", 1)
        raise FloatingPointError("heun: has diverged")

    made = toys.run("spiral-8Y", "CLD", 5, 1, "constant", 0, HEUN, steps=1, samples=50)
    assert made.tables["toys"][0]["outside"] < 1
    sample = Model.sample
    monkeypatch.setattr(Model, "sample", lambda s, *a, **k: (sample if k.get("trajectory") else refuse)(s, *a, **k))
    row = toys.run("spiral-8Y", "CLD", 5, 1, "constant", 0, HEUN, steps=1, samples=50)
    assert row.tables["toys"][0]["outside"] == 1
    assert row.tables["toys"][0]["nfe"] == 4
    assert math.isnan(row.tables["toys"][0]["gen_std_x"])


def test_baselines() -> None:
    floor, normal = (toys.baseline("checkerboard-6X", k, 0, 20_000).tables["toys"][0] for k in ("real", "gaussian"))
    assert floor["pmf_rmse"] < 0.7 * normal["pmf_rmse"]
    assert floor["outside"] < 1e-3 < normal["outside"]


def test_development_sets_are_not_reported_ones() -> None:
    x = choices.stretched("moons", 1_000, random.generator(0, "a"))
    y = toy("moons")(1_000, random.generator(0, "a"))
    torch.testing.assert_close(x, y * torch.tensor([1.0, 8.0]))


def test_choices() -> None:
    made = choices.train("scurve", "CLD", 10, 1, "constant", 0, 1e-3, steps=3, nfes=[4], powers=[1, 2])
    rows = made.tables["choices"]
    assert [r["choice"] for r in rows] == ["learning rate", "grid", "grid"]
    assert 0 < rows[0]["value"] < 1.2  # E kappa^2 target^2 is below 1, and three steps do no harm
    assert all(0 < r["value"] < 0.1 for r in rows[1:])


def test_tolerance_costs_what_it_allows() -> None:
    """A tighter terminal constraint generates the standard deviations better, and none of them is free."""
    loose, tight = (choices.tolerance(k, 0.7).tables["choices"][0]["value"] for k in (1e-1, 1e-4))
    assert 0 < tight < 0.01 < loose
