"""The 64-dimensional runs: metrics in the right planes, floors, rows as declared, one network for all."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import vsmd
from repro.studies import highdim, toys
from repro.studies.sets.highdim import blocks_64
from vsmd import priors
from vsmd.random import generator


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priors, "MIXTURE_DRAWS", 500)
    monkeypatch.setattr(toys, "PRIOR_POINTS", 500)
    monkeypatch.setattr(highdim, "NETWORK", {"name": "mixer", "width": 4, "depth": 1})
    monkeypatch.setattr(highdim, "TRAINING", {"batch_size": 8, "learning_rate": 1e-3})


def exponential(evaluations: int) -> list[dict[str, Any]]:
    return [{"prior": "gaussian", "solver": "exponential", "evaluations": [evaluations]}]


def test_each_metric_sees_its_own_directions() -> None:
    data = blocks_64()
    x = data(4_000, generator(0, "x"))
    real = highdim.quality(x, 0)
    shift = torch.zeros(64, dtype=torch.float64)
    shift[data.planes] = 1.0
    moved = highdim.quality((x + (data.rotation * data.std) @ shift).float(), 0)
    assert moved["rest_w2"] == pytest.approx(real["rest_w2"], abs=1e-4)
    assert moved["block_w2"] == pytest.approx(1.0, abs=0.1)  # E(theta . (1, 1))^2 = 1
    shift = torch.zeros(64, dtype=torch.float64)
    shift[data.rest] = 0.5
    moved = highdim.quality((x + (data.rotation * data.std) @ shift).float(), 0)
    assert moved["block_w2"] == pytest.approx(real["block_w2"], abs=1e-4)
    assert moved["rest_w2"] == pytest.approx(0.5, abs=0.02)


def test_diverged_samples_give_nan() -> None:
    x = blocks_64()(50, generator(0, "x"))
    x[3, 4] = torch.inf
    row = highdim.quality(x, 0)
    assert math.isnan(row["block_w2"])
    assert math.isnan(row["rest_w2"])


def test_floors() -> None:
    rows = {kind: highdim.baseline(kind, 0, 4_000).tables["highdim"][0] for kind in ("real", "gaussian", "mixture-4")}
    assert all(list(row) == highdim.HIGHDIM_COLUMNS for row in rows.values())
    assert rows["real"]["block_w2"] < 0.06
    assert 0.2 < rows["gaussian"]["block_w2"] < 0.3
    assert rows["gaussian"]["rest_w2"] == pytest.approx(rows["real"]["rest_w2"], rel=0.2)
    assert rows["mixture-4"]["block_w2"] < 0.4
    again = highdim.baseline("real", 0, 4_000).tables["highdim"][0]
    assert again["block_w2"] == rows["real"]["block_w2"]


@pytest.mark.parametrize("a_mode", ["steered", "zero"])
def test_rows_of_the_family(a_mode: str) -> None:
    plan: list[dict[str, Any]] = [
        {"prior": "gaussian", "solver": "heun", "evaluations": [4, 6]},
        {"prior": "moments", "solver": "euler", "evaluations": [3]},
        {"prior": "moments", "solver": "euler", "evaluations": [4], "denoise": True},
    ]
    rows = highdim.run("VSCLD", 1, 5.0, plan, a_mode=a_mode, steps=2, samples=40).tables["highdim"]
    assert [(r["prior"], r["solver"], r["nfe"]) for r in rows] == [
        ("gaussian", "heun", 4), ("gaussian", "heun", 6), ("moments", "euler", 3),
        ("moments", "euler+denoise", 4),
    ]  # fmt: skip
    assert rows[3]["rest_w2"] != rows[2]["rest_w2"]
    for row in rows:
        assert list(row) == highdim.HIGHDIM_COLUMNS
        assert (row["method"], row["a_mode"], row["beta"], row["train_steps"]) == ("VSCLD", a_mode, 5.0, 2)
        assert row["block_w2"] > 0
        assert row["rest_w2"] > 0


@pytest.mark.parametrize("source", ["gaussian", "mixture"])
def test_rows_of_flow_matching(source: str) -> None:
    plan: list[dict[str, Any]] = [{"solver": "heun", "evaluations": [4]}, {"solver": "ab2", "evaluations": [3]}]
    rows = highdim.run_flow("ot-cfm-whitened", 1, plan, source=source, steps=2, samples=40).tables["highdim"]
    assert [(r["solver"], r["nfe"]) for r in rows] == [("heun", 4), ("ab2", 3)]
    for row in rows:
        assert list(row) == highdim.HIGHDIM_COLUMNS
        assert row["prior"] == ("mixture" if source == "mixture" else None)
        assert row["block_w2"] > 0


def test_one_network_of_the_seed() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (list(highdim.network_of(seed).parameters()) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_axes_whiten_and_back() -> None:
    data = blocks_64()
    axes = highdim.Axes.measured(data, 0)
    x = data(20_000, generator(1, "x"))
    z = axes.whiten(x)
    torch.testing.assert_close(torch.cov(z.T.double()), torch.eye(64, dtype=torch.float64), rtol=0, atol=0.05)
    torch.testing.assert_close(axes.colour(z), x, rtol=1e-3, atol=1e-3)


def test_whitened_runs_are_mapped_back() -> None:
    made = highdim.run("CLD", 0, 10, exponential(4), whiten=True, steps=2, samples=3_000)
    (row,) = made.tables["highdim"]
    assert row["method"] == "CLD-whitened"
    assert row["rest_w2"] < 0.08  # a network that has learned nothing draws the moment-matched Gaussian


def test_whitened_runs_learn_in_the_datas_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any basis is principal for a unit covariance: the process's directions must be those of the planes."""
    seen: dict[str, Any] = {}

    def fit(process: Any, data: Any, **options: Any) -> Any:
        found = trained(process, data, **options)
        x = data(20_000, generator(0, "x"))
        seen["directions"] = found.process.to_directions(x).double()
        return found

    trained = vsmd.fit
    monkeypatch.setattr(vsmd, "fit", fit)
    highdim.run("VSCLD", 0, 5, exponential(2), a_mode="steered", whiten=True, steps=2, samples=50)
    z = seen["directions"]
    excess = ((z - z.mean(0)) / z.std(0)).pow(4).mean(0) - 3
    assert int((excess < -0.7).sum()) == 8  # four planes, each coordinate far from Gaussian
    assert int((excess.abs() < 0.3).sum()) == 56
