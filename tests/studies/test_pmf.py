"""PMF-RMSE against numpy, its own law's floor, and diverged samples."""

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

from repro.studies.pmf import PMFReference
from repro.studies.sets.toys import toy
from vsmd.random import generator

SEEDS = st.integers(0, 2**32)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "test", *shape), dtype=torch.float64)


@pytest.fixture(scope="module")
def spiral() -> PMFReference:
    return PMFReference.of(toy("spiral-8Y"))


def test_pmf_agrees_with_numpy(spiral: PMFReference) -> None:
    samples = normal(10_000, 2) * torch.tensor([2.0, 18.0])
    edges = [np.linspace(a, b, 101) for a, b in zip(spiral.low.tolist(), spiral.high.tolist(), strict=True)]
    counts = np.histogram2d(samples[:, 0].numpy(), samples[:, 1].numpy(), bins=edges)[0]
    rmse, outside = spiral.rmse(samples)
    assert outside == pytest.approx(1 - counts.sum() / 10_000, abs=1e-12)
    assert outside > 0.05
    assert rmse == pytest.approx(np.sqrt(np.mean((counts / 10_000 - spiral.pmf.numpy()) ** 2)), rel=1e-6)


def test_pmf_limits_and_mass() -> None:
    points = torch.tensor([[1.0, -4.0], [2.0, -2.0], [2.0, -2.0], [3.0, 8.0]])
    ref = PMFReference.of(lambda n, _: points.repeat(n // 4, 1), draws=1_000_000, bins=5)
    assert torch.allclose(ref.low, torch.tensor([0.975, -4.1], dtype=torch.float64))
    assert torch.allclose(ref.high, torch.tensor([3.075, 8.2], dtype=torch.float64))
    expected = torch.zeros(5, 5, dtype=torch.float64)
    expected[0, 0], expected[2, 0], expected[4, 4] = 0.25, 0.5, 0.25
    assert torch.equal(ref.pmf, expected)
    assert ref.bins == 5
    assert ref.draws == 1_000_000
    assert ref.rmse(points) == (0.0, 0.0)
    ends = torch.stack([ref.low, ref.high])
    assert ref.rmse(ends)[1] == 0.0  # both limits belong to the histogram
    assert ref.rmse(torch.stack([ref.low - 1e-9, ref.high]))[1] == 0.5


def test_pmf_floor_of_the_real_law(spiral: PMFReference) -> None:
    real, gaussian = [], []
    for seed in range(3):
        x = toy("spiral-8Y")(100_000, generator(seed, "real"))
        real.append(spiral.rmse(x))
        noise = normal(100_000, 2, seed=seed) @ torch.linalg.cholesky(x.T.cov()).T.double()
        gaussian.append(spiral.rmse(x.double().mean(0) + noise))
    assert spiral.floor(100_000) == pytest.approx(3.2e-5, rel=0.01)
    assert np.mean([r for r, _ in real]) == pytest.approx(spiral.floor(100_000), rel=0.02)
    assert max(outside for _, outside in real) < 1e-4
    assert np.mean([r for r, _ in gaussian]) == pytest.approx(2.64e-4, rel=0.02)
    assert spiral.floor(3_000) == pytest.approx(math.sqrt(1 / 3_000) / 100, rel=0.01)


def test_pmf_does_not_hide_diverged_samples(spiral: PMFReference) -> None:
    x = toy("spiral-8Y")(100_000, generator(0, "real"))
    clean, outside = spiral.rmse(x)
    assert outside == 0.0
    for value in (math.nan, math.inf, -math.inf, 1e30):
        bad = x.clone()
        bad[::5, 1] = value
        rmse, outside = spiral.rmse(bad)
        assert outside == pytest.approx(0.2, abs=1e-12)
        # a fifth of the mass is missing in every bin: the error is at least a fifth of the reference's norm
        assert rmse > 0.95 * 0.2 * spiral.pmf.square().mean().sqrt().item()
        assert rmse > 1.2 * clean
    assert spiral.rmse(torch.full((10, 2), math.nan)) == (spiral.pmf.square().mean().sqrt().item(), 1.0)


def test_pmf_is_a_function_of_its_seed() -> None:
    first, again, other = (PMFReference.of(toy("moons"), draws=700_000, bins=20, seed=s) for s in (1, 1, 2))
    for name in ("low", "high", "pmf"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.pmf, other.pmf)
    assert first.pmf.sum().item() == pytest.approx(1.0, abs=1e-12)
    with pytest.raises(AttributeError):
        first.draws = 3  # type: ignore[misc]


def test_pmf_of_a_constant_column() -> None:
    for value in (0.0, -3.0):

        def sampler(n: int, g: torch.Generator, value: float = value) -> Tensor:
            return torch.stack([torch.rand(n, generator=g), torch.full((n,), value)], -1)

        ref = PMFReference.of(sampler, 100_000, 10)
        assert (ref.low < ref.high).all()
        assert (ref.pmf.sum(0) > 0.5).sum() == 1  # one bin of that coordinate holds all
        assert ref.rmse(sampler(1000, generator(1)))[1] < 0.01


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_pmf_ignores_the_order(spiral: PMFReference, seed: int) -> None:
    x = toy("spiral-8Y")(500, generator(seed))
    assert spiral.rmse(x) == spiral.rmse(x[torch.randperm(500, generator=generator(seed))])


NAN, ONE, EMPTY = torch.tensor([[0.0, math.nan]] * 3), torch.zeros(1, 2), torch.zeros(0, 2)


CASES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: PMFReference.of(toy("moons"), draws=0), ValueError, "draws=0"),
    (lambda: PMFReference.of(toy("moons"), bins=-1), ValueError, "bins=-1"),
    (lambda: PMFReference.of(lambda n, g: torch.zeros(n, 3), 10), ValueError, "sampler: gave shape (10, 3)"),
    (lambda: PMFReference.of(lambda n, g: NAN, 10), ValueError, "sampler: gave"),
]


@pytest.mark.parametrize(("call", "kind", "message"), CASES, ids=range(len(CASES)))
def test_bad_input_is_named(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=re.escape(message)) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("bad", "message"),
    [(ONE, "n >= 2"), (EMPTY, "is empty"), (torch.zeros(3, 3), "must be (n, 2)"), (ONE[0], "n >= 2")],
)
def test_pmf_names_bad_samples(bad: Tensor, message: str, spiral: PMFReference) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        spiral.rmse(bad)
    with pytest.raises(ValueError, match="n=0"):
        spiral.floor(0)
