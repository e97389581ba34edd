"""repro.studies.approximation: fixed points, the limit of (13) and the mean squared errors that theory has."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from oracles import Array, kernel_np
from scipy.integrate import quad_vec, solve_ivp

from repro.studies import approximation as ap
from repro.studies import mean_fields as mf
from repro.studies.convergence import Row, exact_moments, free_gradient, gaussian_process, kl, target_law
from repro.studies.derivations import Zero, as_array
from vsmd.scores import Score
from vsmd.training.adapting import backward_moments


def picked(rows: list[Row], quantity: str, **where: Any) -> list[Row]:
    return [r for r in rows if r["quantity"] == quantity and all(str(v) in str(r[k]) for k, v in where.items())]


def field_by_ode(s: float, std: float, beta: float, policy: str) -> float:
    """dJ/dA_x along (14) for R = 1, gamma = 2 from an ODE of the reverse SDE's covariance, started at N(0, I)."""
    c = math.sqrt(s)
    m, q = np.array([[0, 1], [-s, -2 * c]]), np.diag([0.0, 4.0])

    def gain(t: float) -> Array:
        f, n = kernel_np(m, q, beta * t / 2)
        return np.asarray(-np.linalg.inv(f @ np.diag([std**2, 1.0]) @ f.T + n)[1])

    def rates(r: float, y: Array) -> Array:
        g = -beta / 2 * m
        g[1] += beta * 2 * gain(1 - r)
        p = y.reshape(2, 2)
        return np.asarray(g @ p + p @ g.T + beta / 2 * q).ravel()

    law = solve_ivp(rates, (0, 1), np.eye(2).ravel(), "DOP853", rtol=1e-10, atol=1e-12, dense_output=True).sol
    a = np.array([(1 - s) / 4, (1 - c) / 2])

    def integrand(r: float) -> Array:
        p = law(r).reshape(2, 2)
        z = (gain(1 - r) - a if policy == "duality" else gain(1 - r)) @ p
        return np.asarray(p @ a + z + np.array([0, 1]))

    g_x, g_v = quad_vec(integrand, 0, 1, epsabs=1e-10)[0]
    return float(g_x + g_v / c)


@pytest.mark.parametrize(("reading", "policy"), [("duality", "duality"), ("z = s", "score")])
@pytest.mark.parametrize("s", [0.5, 3.0])
def test_mean_field_against_an_ode(reading: str, policy: str, s: float) -> None:
    got = mf.mean_field(reading, "VSCLD", 8.0, 5.0, np.array([s]))
    assert got[0] == pytest.approx(field_by_ode(s, 8.0, 5.0, policy), rel=1e-7)


def test_stability() -> None:
    """The fixed points known beforehand, stable from everywhere; none for Algorithm 2's start."""
    rows = ap.stability([8.0], 5.0, 3).tables["rates"]
    (duality,), (score,), (terminal,) = (
        picked(rows, "fixed_point", setting=name) for name in ("duality", "z = s", "Algorithm 2")
    )
    assert duality["y"] == pytest.approx(2.0099, abs=5e-5)
    assert score["y"] == pytest.approx(1.2084, abs=5e-5)
    assert terminal["n"] == 0
    assert math.isnan(terminal["y"])
    for row in (duality, score):
        assert row["n"] == 1
        assert row["fitted"] > 0.5
        assert (row["low"], row["high"]) == pytest.approx((1e-2, 1e3))
    assert min(r["y"] for r in picked(rows, "mean_field", setting="Algorithm 2")) > -1e-9
    near = [r["y"] for r in picked(rows, "from_start", setting="duality") if r["x"] <= 5]
    assert max(near) < 2e-3
    bias = [r["y"] for r in picked(rows, "sa_bias", setting="duality")]
    assert bias[0] > 3 * bias[1] > 6 * bias[2] > 0
    assert mf.roots(lambda s: mf.mean_field("duality", "VSCLD", 1.0, 5.0, s)) == pytest.approx([1.0])


def test_growth_never_rests() -> None:
    rows = ap.growth(8.0, 5.0, 30)
    for name in ("k^-0.6", "constant"):
        s = [r["y"] for r in picked(rows, "terminal_growth", setting=name)]
        assert min(np.diff(s)) > 0
        assert picked(rows, "terminal_growth", setting=name)[0]["low"] > 0.05


def test_simulated_field_is_the_mean_of_the_simulation() -> None:
    s = np.array([2.0])
    exact = mf.simulated_field("duality", "VSCLD", 8.0, 5.0, s, 20)[0]
    many = gaussian_process("VSCLD", np.full(100, 8.0), 5.0, stiffness=2.0)
    how = mf.adaptation("duality", 20, 500)
    values = free_gradient(many, backward_moments(Score(many, Zero()), how, 0, 0), how)
    assert values.mean() == pytest.approx(exact, abs=4 * values.std() / 10)
    fine = [abs(mf.simulated_field("duality", "VSCLD", 8.0, 5.0, s, n) - mf.mean_field("duality", "VSCLD", 8.0, 5.0, s))
            for n in (20, 40)]  # fmt: skip
    assert fine[1] < 0.5 * fine[0]


@pytest.mark.parametrize(("schedule", "eta"), [("k^-0.6", 0.3), ("k^-1", 0.3), ("constant", 0.1)])
def test_limit_constant(schedule: str, eta: float) -> None:
    """E e^2 of the linear recursion e <- (1 - eta_k phi) e - eta_k noise, iterated exactly."""
    phi, s2, square = 0.8, 0.5, 1.0
    for k in range(200_000):
        step = eta * ap.SCHEDULES[schedule](k)
        square = (1 - step * phi) ** 2 * square + step**2 * s2
    assert square / step == pytest.approx(ap.limit_constant(phi, s2, schedule, eta), rel=0.01)


def test_no_limit_where_the_steps_are_too_small() -> None:
    assert math.isnan(ap.limit_constant(0.8, 0.5, "1/(1+k)", 0.2))


def test_stochastic_tables() -> None:
    found = ap.stochastic(["duality"] * 2, ["k^-0.75", "constant"], 0, replicas=20, rounds=12, nodes=12, paths=4).tables
    names = {r["schedule"] for r in found["convergence"]}
    assert names == {"k^-0.75", "k^-0.75, averaged", "constant"}
    for row in found["convergence"]:
        assert row["bound"] == 2 * row["eta"]
        assert row["mse"] > 0
    first = next(r for r in found["convergence"] if r["schedule"] == "constant")
    assert (first["k"], first["eta"]) == (1, 0.2)
    (constant,) = picked(found["rates"], "sa_constant", setting="constant")
    assert constant["expected"] > 0
    assert constant["n"] == ap.BLOCKS
    again = ap.stochastic(["duality"], ["constant"], 0, replicas=20, rounds=12, nodes=12, paths=4).tables
    assert [r["mse"] for r in again["convergence"]] == [
        r["mse"] for r in found["convergence"] if r["schedule"] == "constant"
    ]
    other = ap.stochastic(["Algorithm 2's start"], ["k^-0.6"], 0, replicas=20, rounds=4, nodes=12, paths=4).tables
    assert {r["mse"] for r in other["convergence"]} == {None}
    assert other["rates"] == []


def test_stochastic_meets_its_constant() -> None:
    """mse/eta late in a run, against s2/(2 phi - eta phi^2)."""
    rows = ap.stochastic(["duality"], ["constant"], 1, eta=0.1, replicas=100, rounds=80, nodes=20).tables["rates"]
    (row,) = picked(rows, "sa_constant")
    assert row["fitted"] == pytest.approx(row["expected"], rel=0.35)
    assert row["fitted"] < 0.5


def test_averages_weigh_late_iterates_more() -> None:
    process = gaussian_process("VSCLD", np.full(3, 8.0), 5.0)
    iterates, averages = ap.simulate(process, mf.adaptation("duality", 8, 4), [0.1] * 6, 0)
    weights = np.arange(1, 7)[:, None]
    np.testing.assert_allclose(averages[-1], (weights * iterates).sum(0) / weights.sum(), rtol=1e-12)


@pytest.mark.parametrize("damping", [1.0, 0.7])
def test_iterated_minimiser_ends_in_the_steered_a(damping: float) -> None:
    """Iterative proportional fitting: Sinkhorn's rate, and the steered A up to the pieces' size."""
    ends = []
    for pieces in (20, 40):
        rows = ap.iterate(4.0, 5.0, damping, [pieces], 12).tables["rates"]
        error, gap, end = (picked(rows, f"ipf_{n}") for n in ("error", "gap", "end"))
        assert end[0]["fitted"] == pytest.approx(end[0]["expected"], rel=0.05)
        assert gap[-1]["y"] < 1e-3 * gap[0]["y"]
        assert all(g["y"] >= e["y"] for g, e in zip(gap[:2], end[:2]))  # data processing
        ends.append(error[-1]["y"])
    assert 2.5 < ends[0] / ends[1] < 6


def test_forward_gap_is_the_kl_of_paths() -> None:
    """Against the KL of two overdamped processes' joint laws at 61 times."""
    one, two = (gaussian_process("VSDM", 2.0, 3.0, stiffness=s) for s in (1.0, 1.5))
    n = 60
    times = torch.linspace(0, 1, n + 1, dtype=torch.float64)
    laws = []
    for process in (one, two):
        f = torch.exp(-process.stiffness[0, 0] * 1.5 * times)
        v = 4 * f**2 + (1 - f**2) / process.stiffness[0, 0]
        lag = torch.exp(-process.stiffness[0, 0] * 1.5 * (times[:, None] - times).abs())
        laws.append((lag * torch.where(times[:, None] < times, v[:, None], v)).numpy())
    exact = float(kl(laws[0] - laws[1], laws[1]))
    middle = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    d = np.full((400, 1, 1), 0.25)
    assert mf.forward_gap(one, middle, d) == pytest.approx(exact, rel=0.03)
    assert mf.forward_gap(one, middle, 0 * d) == 0


def test_steered_meets_the_target() -> None:
    process = gaussian_process("VSULD", 6.0, 3.0, 0.7)
    kernel = mf.steered(process).kernel(torch.ones(1, dtype=torch.float64))
    law = as_array(process.covariance(kernel, process.known().var))[0]
    np.testing.assert_allclose(law, target_law(process), atol=1e-9)
    assert float(exact_moments(process, mf.adaptation("duality")).weight) == pytest.approx(6.0)  # beta gamma
