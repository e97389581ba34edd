"""Flow matching: exact plans, measured orders, scalings that come back, training that learns, rows as declared."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from repro.studies import flow_matching as fm
from repro.studies import toys
from repro.studies.sets.toys import toy
from vsmd import priors
from vsmd.family import forward_process
from vsmd.random import generator
from vsmd.training import fit
from vsmd.training.trainer import Trainer


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priors, "MIXTURE_DRAWS", 2_000)
    monkeypatch.setattr(toys, "W2_POINTS", 50)
    monkeypatch.setattr(toys, "PATH_POINTS", 60)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "test", *shape))


class GaussianVelocity(nn.Module):
    """E[x_1 - x_0 | x_t] for data N(0, std^2) per coordinate, from the level that the network is told."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, z: Tensor, level: Tensor, context: Tensor | None = None) -> Tensor:
        t = level.sigmoid()
        return z * (self.std**2 * t - (1 - t)) / ((self.std * t).square() + (1 - t).square())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 60), st.integers(1, 3), st.integers(2, 40))
def test_pairs_are_the_optimal_assignment_of_every_minibatch(seed: int, n: int, d: int, size: int) -> None:
    from scipy.optimize import linear_sum_assignment

    x0, x1 = normal(n, d, seed=seed), 5 * normal(n, d, seed=seed + 1) + 2
    found = fm.paired(x0, x1, size)
    groups = -(-n // size)
    for g in range(groups):
        a, b, c = x0[g::groups].double(), x1[g::groups].double(), found[g::groups].double()
        assert len(a) <= size
        assert torch.equal(b.unique(dim=0), c.unique(dim=0))  # a permutation
        cost = torch.cdist(a, b).square().numpy()
        best = cost[linear_sum_assignment(cost)].sum()
        assert (a - c).square().sum().item() == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("ab2", 2), ("midpoint", 2), ("heun", 2)])
def test_orders(solver: str, order: int) -> None:
    """dx/dt = -(1 + t) x, x(1) = x(0) exp(-3/2)."""

    def error(steps: int) -> float:
        times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        x = fm.follow(lambda x, t: -(1 + t) * x, torch.ones(1, 1, dtype=torch.float64), times, solver)
        return abs(x.item() - math.exp(-1.5))

    assert math.log2(error(40) / error(80)) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("solver", fm.EVALUATIONS)
def test_evaluations_and_nodes(solver: str) -> None:
    calls: list[float] = []
    nodes: list[Tensor] = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        calls.append(float(t))
        return torch.full_like(x, 2.0)

    end = fm.follow(velocity, torch.zeros(3, 1), torch.linspace(0, 1, 6), solver, nodes.append)
    assert len(calls) == 5 * fm.EVALUATIONS[solver]
    torch.testing.assert_close(torch.stack(nodes)[:, 0, 0], torch.linspace(0, 2, 6))  # straight: exact for all
    assert torch.equal(end, nodes[-1])


def test_sampling_with_the_exact_velocity_of_gaussian_data() -> None:
    """The exact flow of N(0, I) to N(0, std^2) multiplies by std, whatever the point."""
    flow = fm.Flow(GaussianVelocity(3.0), forward_process("SGM", (2,)), scaled=False)
    start, end = flow.sample(50, "heun", 400, seed=1, trajectory=True)[[0, -1]]
    torch.testing.assert_close(end, 3 * start, rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(flow.sample(50, "heun", 400, seed=1, batch_size=7), end)
    for solver, power in (("heun", 1.5), ("midpoint", 2.0), ("ab2", 1.5)):  # shorter steps at the end, the same flow
        torch.testing.assert_close(flow.sample(50, solver, 400, 1, grid_power=power), 3 * start, rtol=3e-3, atol=2e-3)


@pytest.mark.parametrize("scaling", ["standardised", "whitened"])
def test_scaled_data_are_white_and_come_back(scaling: str) -> None:
    data = toy("checkerboard-6X")
    trainer = fm.FlowTrainer(
        f"i-cfm-{scaling}", data, (2,), "gaussian", network=None, steps=1, batch_size=8, learning_rate=1e-3,
        schedule="cosine", ema=0.9, clip=1.0, seed=0, device=torch.device("cpu"),
    )  # fmt: skip
    flow, x = trainer.flow(), data(100_000, generator(5))
    z = flow.scale(x)
    torch.testing.assert_close(flow.unscale(z), x, rtol=1e-4, atol=1e-3)
    cov = torch.cov(z.T)
    torch.testing.assert_close(cov.diagonal(), torch.ones(2), atol=0.03, rtol=0)
    correlation = 0.0 if scaling == "whitened" else -(math.pi**2) / 4 / ((4 * math.pi) ** 2 / 12)
    assert float(cov[0, 1]) == pytest.approx(correlation, abs=0.02)
    # a network at zero does not move: samples are the source, mapped back
    assert torch.cov(flow.sample(50_000, "euler", 1, 0).T)[0, 0].sqrt() == pytest.approx(21.77, rel=0.02)


def trained(method: str, **options: Any) -> fm.Flow:
    def data(n: int, stream: torch.Generator) -> Tensor:
        return 3 + 0.5 * torch.randn(n, 1, generator=stream)

    return fm.train(method, data, (1,), **({"steps": 150, "batch_size": 128} | options))


@pytest.mark.parametrize("method", ["i-cfm", "ot-cfm"])
def test_it_learns(method: str) -> None:
    x = trained(method).sample(4_000, "heun", 10, 0)
    assert x.mean() == pytest.approx(3.0, abs=0.15)
    assert x.std() == pytest.approx(0.5, abs=0.15)
    torch.testing.assert_close(
        trained(method, steps=3).sample(5, "ab2", 4, 0), trained(method, steps=3).sample(5, "ab2", 4, 0)
    )


def test_optimal_pairs_straighten() -> None:
    """In one dimension the optimal coupling is monotone and paths are straight, but for the minibatch."""
    bends = []
    for method in ("i-cfm", "ot-cfm"):
        x = trained(method, source="mixture").sample(500, "euler", 20, 0, trajectory=True)
        bends.append(float(x.diff(n=2, dim=0).abs().mean()))
    assert bends[1] < 0.7 * bends[0]


def test_mixture_source_is_the_data_s_law() -> None:
    start = trained("i-cfm-standardised", source="mixture", steps=1).start(20_000, generator(0))
    assert start.mean() == pytest.approx(0.0, abs=0.03)
    assert start.std() == pytest.approx(1.0, abs=0.03)


def test_peers_train_as_fit_does() -> None:
    defaults = inspect.signature(fit).parameters
    assert {name: str(value) for name, value in fm.AS_FIT.items()} == {
        name: str(defaults[name].default) for name in fm.AS_FIT
    }


def test_same_network_and_batches_as_the_family() -> None:
    settings: dict[str, Any] = {
        "steps": 5, "batch_size": 16, "learning_rate": 1e-3, "schedule": "cosine", "ema": 0.9, "clip": 1.0, "seed": 3,
        "device": torch.device("cpu"),
    }  # fmt: skip
    ours = Trainer(forward_process("CLD", (2,)), toy("moons"), None, adaptation=None, **settings)
    theirs = fm.FlowTrainer("i-cfm", toy("moons"), (2,), "gaussian", network=None, **settings)
    for a, b in zip(ours.network.parameters(), theirs.network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(ours.batch()[0].x, theirs.batch()[0].x)


@pytest.mark.parametrize("source", fm.SOURCES)
def test_rows(source: str) -> None:
    plan: list[dict[str, Any]] = [{"solver": "heun", "evaluations": [4, 6]}, {"solver": "euler", "evaluations": [5]}]
    made = fm.run("spiral-8Y", "ot-cfm-standardised", 3, plan, steps=2, samples=300, source=source, points=20)
    rows = made.tables["toys"]
    assert [(r["solver"], r["nfe"], r["w2"] is not None) for r in rows] == [
        ("heun", 4, False), ("heun", 6, True), ("euler", 5, False),
    ]  # fmt: skip
    for row in rows:
        assert list(row) == toys.TOYS_COLUMNS
        assert row["prior"] == ("mixture" if source == "mixture" else None)
        assert [row[c] for c in ("beta", "R", "schedule", "a_mode", "basis")] == [None] * 5
        assert row["straightness_x"] > 0
        assert row["train_steps"] == 2
    assert made.points is not None
    suffix = "-mixture" if source == "mixture" else ""
    assert made.points[f"spiral-8Y_ot-cfm-standardised{suffix}_3"].shape == (20, 2)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"^method='ot-cmf': must be one of .*\(did you mean 'ot-cfm'\?\)"):
        trained("ot-cmf")
    with pytest.raises(ValueError, match=r"^source='uniform': must be one of 'gaussian', 'mixture'"):
        trained("i-cfm", source="uniform")
    with pytest.raises(ValueError, match=r"^steps=0: must be an integer >= 1"):
        trained("i-cfm", steps=0)
    with pytest.raises(ValueError, match=r"^solver='rk4': must be one of"):
        fm.follow(lambda x, t: x, torch.ones(1), torch.linspace(0, 1, 3), "rk4")
    with pytest.raises(FloatingPointError, match=r"^i-cfm: weights are not finite"):
        trained("i-cfm", steps=4, learning_rate=1e38, batch_size=4)
