"""CRPS against its definition and closed form, CRPS-Sum against GluonTS."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vsmd import metrics
from vsmd.random import generator

SEEDS = st.integers(0, 2**32)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "test", *shape), dtype=torch.float64)


def test_crps_against_its_definition() -> None:
    x, y = normal(23, 4, 2), normal(4, 2, seed=1)
    pairs = (x[:, None] - x[None]).abs().mean((0, 1))
    assert torch.allclose(metrics.crps(x, y), (x - y).abs().mean(0) - pairs / 2, atol=1e-12)
    # ∫(F(z) - 1[z >= y])² dz, F a step function: exact between its steps
    for column, at in zip(x.flatten(1).T, y.flatten(), strict=True):
        z = torch.cat([column, at[None]]).sort().values
        middle = (z[1:] + z[:-1]) / 2
        cdf = (column[None] <= middle[:, None]).double().mean(1)
        integral = ((cdf - (middle >= at).double()).square() * z.diff()).sum()
        assert metrics.crps(column, at).item() == pytest.approx(integral.item(), rel=1e-9)


def test_crps_of_a_normal_law_and_of_one_sample() -> None:
    x = torch.special.ndtri((torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000)[:, None]
    y = torch.tensor([1.3], dtype=torch.float64)
    # Gneiting, Raftery 2007, eq. 21
    cdf, pdf = torch.special.ndtr(y), torch.exp(-y.square() / 2) / math.sqrt(2 * math.pi)
    expected = y * (2 * cdf - 1) + 2 * pdf - 1 / math.sqrt(math.pi)
    assert torch.allclose(metrics.crps(x, y), expected, atol=1e-3)
    assert torch.allclose(metrics.crps(x, y, [k / 200 for k in range(1, 200)]), expected, atol=1e-2)
    assert metrics.crps(torch.tensor([[2.0, -1.0]]), torch.tensor([5.0, -1.0])).tolist() == [3.0, 0.0]
    assert metrics.crps(torch.tensor([1.0, 3.0]), torch.tensor(2.0), quantiles=[0.5]).item() == 1.0


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 40), st.floats(-1e6, 1e6))
def test_crps_invariances(seed: int, size: int, shift: float) -> None:
    x, y = normal(size, 3, seed=seed), normal(3, seed=seed)
    value = metrics.crps(x, y)
    assert (value >= 0).all()
    assert (value <= (x - y).abs().mean(0) + 1e-12).all()
    assert torch.allclose(metrics.crps(x + shift, y + shift), value, atol=1e-8)
    assert torch.allclose(metrics.crps(x[torch.randperm(size, generator=generator(seed))], y), value)
    assert torch.allclose(metrics.crps(-2 * x, -2 * y), 2 * value)


@pytest.mark.filterwarnings("ignore::FutureWarning:gluonts")
@pytest.mark.parametrize("size", [1, 10, 11, 100])
def test_crps_sum_is_that_of_gluonts(size: int) -> None:
    pd = pytest.importorskip("pandas")
    evaluation = pytest.importorskip("gluonts.evaluation")
    forecast = pytest.importorskip("gluonts.model.forecast")
    windows, horizon, series = 3, 6, 4
    samples = (normal(size, windows, horizon, series) + 0.5).numpy()
    target = (normal(windows, horizon, series, seed=1) + 0.5).numpy()
    frames, forecasts = [], []
    for w in range(windows):
        past = np.random.default_rng(w).normal(size=(20, series))
        index = pd.period_range("2020-01-01", periods=20 + horizon, freq="D")
        frames.append(pd.DataFrame(np.concatenate([past, target[w]]), index=index))
        forecasts.append(forecast.SampleForecast(samples=samples[:, w], start_date=index[20]))
    evaluator = evaluation.MultivariateEvaluator(quantiles=(np.arange(20) / 20.0)[1:], target_agg_funcs={"sum": np.sum})
    expected, _ = evaluator(frames, forecasts, num_series=windows)
    value = metrics.quantile_crps_sum(samples, target)
    assert value == pytest.approx(expected["m_sum_mean_wQuantileLoss"], rel=1e-9)
    single = metrics.quantile_crps_sum(torch.from_numpy(samples[:, 0]), torch.from_numpy(target[0]))
    assert single > 0
    assert single != value


def test_crps_sum_by_hand() -> None:
    target = torch.tensor([[3.0, 1.0], [2.0, 2.0]])
    assert metrics.quantile_crps_sum(target[None], target) == 0.0
    # a point forecast 1 too high everywhere in the sum: mean over q of 2 (1 - q) · 2 / 8
    forecast = target[None] + 0.5
    assert metrics.quantile_crps_sum(forecast, target) == pytest.approx(0.25)
    assert metrics.quantile_crps_sum(forecast, target, quantiles=[0.9]) == pytest.approx(2 * 0.1 * 2 / 8)


NAN, EMPTY = torch.tensor([[0.0, math.nan]] * 3), torch.zeros(0, 2)
GOOD, PATH = torch.zeros(4, 2), torch.zeros(3, 5, 2)


CASES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: metrics.crps(GOOD, GOOD), ValueError, "target: shape (4, 2)"),
    (lambda: metrics.crps(NAN, NAN[0]), ValueError, "samples: 3 of 6"),
    (lambda: metrics.crps(EMPTY, GOOD[0]), ValueError, "samples: is empty"),
    (lambda: metrics.crps(GOOD, GOOD[0], []), ValueError, "quantiles=()"),
    (lambda: metrics.crps(GOOD, GOOD[0], [1.5]), ValueError, "quantiles=1.5"),
    (lambda: metrics.quantile_crps_sum(GOOD, GOOD[0]), ValueError, "target: shape (2,)"),
    (lambda: metrics.quantile_crps_sum(PATH, PATH[0]), ValueError, "target: sums to 0"),
]


@pytest.mark.parametrize(("call", "kind", "message"), CASES, ids=range(len(CASES)))
def test_bad_input_is_named(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=re.escape(message)) as error:
        call()
    assert "\n" not in str(error.value)
