"""repro.studies.orders: orders and counts of steps, and the held score's path KL, against other ways to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from repro.studies import orders as od
from repro.studies.convergence import gaussian_process
from repro.studies.derivations import forward_covariance
from vsmd.scores import Score

ORDERS = {"euler-maruyama": 1, "aboba": 1, "baoab-midpoint": 2, "heun": 2, "exponential": 2, "exponential-1": 1}


@pytest.mark.parametrize("ratio", [0.3, 1.0, 5.0])
def test_rescaled_is_the_exact_score(ratio: float) -> None:
    """gain + out net inp is the v-row of -S_t^{-1} for data of `ratio` times the assumed variance."""
    assumed, data = gaussian_process("CLD", 2.0, 5.0), gaussian_process("CLD", 2.0 * ratio**0.5, 5.0)
    times = torch.tensor([0.9, 0.3, 0.02], dtype=torch.float64)
    at = assumed.coefficients(times, dtype=torch.float64)
    score = Score(assumed, od.Rescaled(ratio))
    want = -np.linalg.inv(forward_covariance(data, times.numpy()))[:, 0, 1]
    for i in range(len(times)):
        got = score(torch.eye(2, dtype=torch.float64)[..., None], at.at(i))[:, 0]
        np.testing.assert_allclose(got.numpy(), want[i], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("solver", ORDERS)
def test_orders(solver: str) -> None:
    rows = od.order([solver], ["CLD"], 2.0, 5.0, [40, 57, 80, 113, 160]).tables["orders"]
    assert rows[0]["fitted_order"] == pytest.approx(ORDERS[solver], abs=0.15)
    assert rows[0]["low"] < rows[0]["fitted_order"] < rows[0]["high"]
    errors, h = [r["error"] for r in rows], [r["h"] for r in rows]
    assert errors == sorted(errors, reverse=True)
    assert h == pytest.approx([0.99 / n for n in (40, 57, 80, 113, 160)])
    assert rows[0]["nfe"] == 40 * (2 if solver in ("heun", "baoab-midpoint") else 1)


@pytest.mark.parametrize("method", ["CLD", "SGM"])
def test_path_kl_against_sampled_increments(method: str) -> None:
    """Small steps: E|s(t) - s(t_k)|^2 grows as g^2 |d s/d a_last|^2 (t_k - t), so KL -> sum of g^4 gain^2 h^2/4."""
    process, n = gaussian_process(method, 2.0, 5.0), 20_000
    times = np.linspace(1, 1e-2, n + 1)[:-1]
    gain = np.linalg.inv(forward_covariance(process, times))[:, 0, -1, -1]
    g2 = 5.0 * (2.0 if process.k == 2 else 1.0)
    want = float((g2**2 * gain**2).sum() * (0.99 / n) ** 2 / 4)
    assert od.path_kl(process, n) == pytest.approx(want, rel=0.02)


def test_needed_steps() -> None:
    steps = [10, 100, 1_000]
    values = 5.0 / np.array(steps)
    assert od.needed(steps, values, 0.2) == pytest.approx(25)
    assert math.isnan(od.needed(steps, values, 1.0))
    assert math.isnan(od.needed(steps, values, 1e-3))


@pytest.mark.parametrize(("solver", "exponents"), [("euler-maruyama", (0.5, 1.0)), ("held score", (1.0, 2.0))])
def test_dimension(solver: str, exponents: tuple[float, float]) -> None:
    most = 400 if solver == "euler-maruyama" else 2**16
    rows = od.dimension(["SGM"], [solver], [most], 2.0, 5.0, [8, 64, 512], [0.5, 0.2, 0.1]).tables["rates"]
    for quantity, exponent in zip(("steps_by_dimension", "steps_by_accuracy"), exponents):
        mine = [r for r in rows if r["quantity"] == quantity and "TV" not in r["setting"].replace("path TV", "")]
        assert mine[0]["fitted"] == pytest.approx(exponent, abs=0.08)
        x, y = zip(*[(r["x"], r["y"]) for r in mine if r["setting"] == mine[0]["setting"]])
        assert np.polyfit(np.log(x), np.log(y), 1)[0] == pytest.approx(exponent, abs=0.1)
    assert {r["x"] for r in rows if r["quantity"] == "steps_by_accuracy"} <= {2.0, 5.0, 10.0}


def test_distances_vanish() -> None:
    coarse, fine = (od.distances(gaussian_process("CLD", 2.0, 5.0), "euler-maruyama", n) for n in (50, 200))
    assert fine[0] < coarse[0] / 8  # squares of a first-order error
    assert fine[1] < coarse[1] / 8
