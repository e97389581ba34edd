"""repro.studies.cost, contestants and cost_choices: rows as declared, energies in closed form, races, the study."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
import torch

from repro.grid.runs import Run
from repro.studies import bridge_matching, contestants, cost, cost_choices, flow_peers, toys
from repro.studies import simulated_bridges as sb
from repro.studies.sets.toys import toy
from repro.studies.units import DEVELOPMENT
from vsmd.family import forward_process

TINY: dict[str, Any] = {"steps": 8, "checkpoints": 2, "samples": 60}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"W2_POINTS": 20, "PATH_STEPS": 4, "PRIOR_POINTS": 500}.items():
        monkeypatch.setattr(toys, name, value)
    monkeypatch.setattr(cost, "PATHS", 30)
    monkeypatch.setattr(contestants, "ENERGY_POINTS", 50)
    for room in (sb, bridge_matching):
        defaults = room.train.__kwdefaults__ | {"batch_size": 16, "paths": 32}
        monkeypatch.setattr(room.train, "__kwdefaults__", defaults)


@pytest.mark.parametrize(("method", "solver"), [("mSB", "chain"), ("SB-standardised", "flow"),
                                                ("DSBM-standardised", "chain"), ("VSCLD", "exponential+denoise"),
                                                ("CLD-standardised", "heun"), ("OT-CFM", "euler")])  # fmt: skip
def test_rows(method: str, solver: str) -> None:
    settings = {"stages": 2} if method in contestants.BRIDGES else {}
    rows = cost.run("moons", method, 0, solver, 4, evaluations=[6], settings=settings, **TINY).tables["cost"]
    assert all(tuple(row) == cost.COLUMNS for row in rows)
    assert [(r["train_steps"], r["nfe"]) for r in rows] == [(4, 4), (8, 4), (8, 6)]
    assert 0 < rows[0]["train_seconds"] < rows[1]["train_seconds"] == rows[2]["train_seconds"]
    assert all(r["w2"] > 0 and r["npe"] >= 0 and r["solver"] == solver for r in rows)
    assert (rows[0]["control_energy"] is None) == (method == "OT-CFM")


@pytest.mark.skipif(not flow_peers.installed(), reason="torchcfm is not installed (extra `peers`)")
def test_the_library() -> None:
    rows = cost.run("moons", "torchcfm OT-CFM-standardised", 0, "euler", 4, solvers=["heun"], **TINY).tables["cost"]
    assert [(r["solver"], r["nfe"]) for r in rows] == [("euler", 4), ("euler", 4), ("heun", 4)]


@pytest.mark.parametrize(("method", "k"), [("VSDM", 1), ("VSCLD", 2)])
def test_control_energy(method: str, k: int) -> None:
    """In closed form as simulated: a chain whose policy is the linear one of the process. Without control it is 0."""
    process = forward_process(method, (1,), beta=2.0, variational_score="steered")
    process = process.with_moments(torch.zeros(1), torch.full((1,), 9.0, dtype=torch.float64))

    class Linear(torch.nn.Module):
        def forward(self, z: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
            t = (float(level[0, 0]) / sb.LEVELS + 1) / 2
            rates = process.rates(torch.tensor([min(max(t, 1e-6), 1 - 1e-6)]))
            gain = torch.stack([-(rates[0] - 1), *(-process.gamma * (c - 1) for c in rates[1:])], -1)[0, 0].float()
            return (z @ gain)[:, None].expand(-1, k) / chain.noise**0.5

    chain = sb.Chain(k=k, dim=1, clock=1.0, steps=400)
    policy = sb.Policy(chain, Linear())
    bridge = sb.Bridge(chain, policy, policy, torch.zeros(1), torch.ones(1))
    x = 3 * torch.randn(10_000, 1, generator=torch.Generator().manual_seed(0))
    assert bridge.control_energy(x, 0) == pytest.approx(contestants.control_energy(process), rel=0.03)
    free = forward_process("SGM" if k == 1 else "ULD", (1,), beta=2.0, damping=None if k == 1 else 0.7)
    free = free.with_moments(torch.zeros(1), torch.full((1,), 9.0, dtype=torch.float64))
    assert contestants.control_energy(free) == pytest.approx(0.0, abs=1e-12)


def test_transport_of_straight_paths() -> None:
    """Straight optimal paths spend the least there is; a detour more; what diverged nothing that counts."""
    start = torch.randn(40, 2, generator=torch.Generator().manual_seed(1))
    times = torch.linspace(0, 1, 5, dtype=torch.float64)
    straight = torch.stack([(1 + 2 * t) * start for t in times.float()])
    measures = cost.transport(straight, times)
    assert measures["npe"] == pytest.approx(0.0, abs=1e-5)
    assert measures["straightness_x"] == pytest.approx(0.0, abs=1e-4)
    detour = straight.clone()
    detour[2] += 3
    assert cost.transport(detour, times)["npe"] > 1
    assert math.isnan(cost.transport(straight * math.inf, times)["npe"])


def test_races() -> None:
    """Seconds to the other one's best, by seed; never is 10; energies at the end."""

    def rows(method: str, seed: int, w2: list[float], energy: float | None) -> list[dict[str, Any]]:
        base = {"dataset": "moons", "method": method, "seed": seed, "solver": "chain", "nfe": 20}
        ended = [base | {"train_steps": i, "train_seconds": 10.0 * i, "w2": w, "control_energy": energy}
                 for i, w in enumerate(w2, 1)]  # fmt: skip
        return [*ended, ended[-1] | {"nfe": 5, "w2": 0.1}]  # drawn otherwise: no part of the race

    table = pd.DataFrame(
        rows("mSB", 0, [3, 1, 2], 4.0) + rows("mSB", 1, [3, 2, 1], 4.0)
        + rows("steered", 0, [1.01, 1, 1], 5.0) + rows("steered", 1, [2, 2, 2], 5.0) + rows("OT-CFM", 0, [1, 1], None)
    )  # fmt: skip
    (run,) = cost.races(table, ("mSB", "SB"))
    made = pd.DataFrame(cost.reached(**run.config).tables["cost_reach"]).set_index(["method", "seed"])
    assert made.share.to_dict() == {("steered", 0): 0.5, ("steered", 1): 10.0, ("OT-CFM", 0): 0.5}
    assert made.reached.to_dict() == {("steered", 0): True, ("steered", 1): False, ("OT-CFM", 0): True}
    assert made.control_share["steered", 0] == 1.25
    assert made.control_share.isna()["OT-CFM", 0]
    assert made.best_w2.tolist() == [1, 1, 1]


class Memory:
    """A store in this process: rows by run."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, list[dict[str, Any]]]] = {}
        self.calls = 0

    def execute(self, runs: list[Run], store: Any, workers: int | None = None) -> None:
        for run in runs:
            if run.key not in self.rows:
                module = cost if run.function.startswith("repro.studies.cost:") else cost_choices
                self.calls += 1
                self.rows[run.key] = dict(getattr(module, run.function.split(":")[1])(**run.config).tables)

    def table(self, name: str, runs: list[Run]) -> pd.DataFrame:
        return pd.DataFrame([row for run in runs for row in self.rows.get(run.key, {}).get(name, [])])

    def names(self) -> list[str]:
        return sorted({name for tables in self.rows.values() for name in tables})

    def entries(self, name: str) -> dict[str, Any]:
        return {key: tables for key, tables in self.rows.items() if name in tables}

    def remove(self, keys: set[str]) -> None:
        for key in keys:
            del self.rows[key]


def test_the_whole_study(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choices, rows, races; nothing again by a second call; a race of other rows is taken out."""
    store: Any = Memory()
    monkeypatch.setattr(cost_choices, "execute", store.execute)
    monkeypatch.setattr(cost_choices, "OTHERS", {"stages": [2]})
    monkeypatch.setattr(cost_choices, "USUAL", {"learning_rate": 2e-3, "stages": 1, "grid": 4, "sigma": 1.0})
    plan: dict[str, Any] = {
        "methods": ["steered", "mSB"], "datasets": ["moons"], "seeds": [0], "tried": 4, "others": ["stages"],
        "steps": 4, "bridge_steps": 4, "samples": 60, "checkpoints": 1, "evaluations": [],
    }  # fmt: skip
    best, rows = cost_choices.study(store, plan)
    assert set(best) == {"mSB"}
    assert best["mSB"]["stages"] in (1, 2)
    assert set(rows.method) == {"steered", "mSB"}
    assert [set(t) for t in store.rows.values()][-1] == {"cost_reach"}
    calls = store.calls
    cost_choices.study(store, plan)
    assert store.calls == calls
    cost.renew(store, [])
    assert "cost_reach" not in store.names()
    partly = cost_choices.study(store, plan | {"seeds": [0, 1]}, missing=False)[1]  # only some rows are there
    assert set(partly.seed) == {0}


def test_the_choice() -> None:
    """Of each thing the best, the others being usual; not one that is on one set only."""
    usual = cost_choices.USUAL

    def rows(w2: float, sets: int = 2, **other: Any) -> list[dict[str, Any]]:
        return [{"method": "mSB", "dataset": d, "w2": w2, **(usual | other)} for d in DEVELOPMENT[:sets]]

    table = pd.DataFrame(rows(2) + rows(1, learning_rate=4e-3) + rows(3, learning_rate=1e-3) + rows(1.5, stages=24)
                         + rows(0.1, 1, stages=6) + rows(2.5, grid=40))  # fmt: skip
    assert cost_choices.chosen(table) == {"mSB": usual | {"learning_rate": 4e-3, "stages": 24}}


@pytest.mark.parametrize("name", cost_choices.PLANS)
def test_plans(name: str) -> None:
    plan = cost_choices.PLANS[name]
    runs = cost_choices.final({}, plan)
    assert len(set(runs)) == len(runs) == len(plan["methods"]) * len(plan["datasets"]) * len(plan["seeds"])


def test_bad_input() -> None:
    for options, message in (
        ({"method": "MSB"}, r"^method='MSB': must be one of .*\(did you mean 'mSB'\?\)"),
        ({"solver": "chian"}, r"^solver='chian': must be one of"),
        ({"nfe": 0}, r"^nfe=0: must be an integer >= 1"),
        ({"checkpoints": 9}, r"^checkpoints=9: must be at most steps=8"),
    ):
        arguments: Any = {"dataset": "moons", "method": "mSB", "seed": 0, "solver": "chain", "nfe": 4, **TINY} | options
        with pytest.raises(ValueError, match=message):
            cost.run(**arguments)
    with pytest.raises(ValueError, match=r"^name='moon'"):
        toy("moon")
