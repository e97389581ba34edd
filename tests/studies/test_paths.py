"""Straightness and energy of paths with known answers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from repro.studies import paths
from vsmd.metrics import wasserstein2
from vsmd.random import generator

SEEDS = st.integers(0, 2**32)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "test", *shape), dtype=torch.float64)


def parabola(steps: int, horizon: float = 1.0) -> tuple[Tensor, Tensor]:
    """x = (s², 3s, 5) + a start for 7 paths, s = t / horizon."""
    t = torch.linspace(0, horizon, steps + 1, dtype=torch.float64)
    s = t / horizon
    start = normal(7, 3)
    return torch.stack([s**2, 3 * s, 5 + 0 * s], -1)[:, None] + start, t


@pytest.mark.parametrize("horizon", [1.0, 0.25])
def test_bend_of_a_parabola(horizon: float) -> None:
    x, t = parabola(100, horizon)
    size = paths.bend(x, t)
    assert torch.allclose(size, torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64) / horizon**2, atol=1e-7)
    assert torch.allclose(paths.bend(x.flip(0), t.flip(0)), size, atol=1e-7)  # the reverse clock


def test_bend_is_a_mean_of_sizes() -> None:
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    x = t[:, None, None, None] ** 2 * torch.tensor([1.0, -3.0]).view(1, 2, 1, 1).expand(1, 2, 4, 5)
    assert torch.allclose(paths.bend(x, t), torch.full((4, 5), 4.0, dtype=torch.float64))


def test_rectified_straightness_and_energy_of_a_parabola() -> None:
    for m in (2, 10, 100):
        x, t = parabola(m, 2.0)
        # ∫(1 - 2s)² = 1/3, less 1/(3m²) for the m linear pieces
        assert paths.rectified_straightness(x, t) == pytest.approx((1 - m**-2) / 3, abs=1e-12)
        assert paths.path_energy(x, t) == pytest.approx(1 + (1 - m**-2) / 3 + 9, abs=1e-11)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(2, 12), st.floats(0.1, 5.0))
def test_paths_have_their_identities(seed: int, steps: int, horizon: float) -> None:
    x = normal(steps + 1, 6, 2, 3, seed=seed)
    t = horizon * torch.rand(steps + 1, generator=generator(seed), dtype=torch.float64).add(0.05).cumsum(0)
    straight, energy = paths.rectified_straightness(x, t), paths.path_energy(x, t)
    chord = (x[-1] - x[0]).square().sum((1, 2)).mean().item()
    assert energy == pytest.approx(straight + chord, rel=1e-9)
    assert energy >= wasserstein2(x[0], x[-1]) ** 2 * (1 - 1e-9)
    for other, clock in ((x + 3, t), (x.flip(0), t.flip(0)), (x[:, [5, 3, 1, 0, 2, 4]], t), (x, 7 - 2 * t)):
        assert paths.rectified_straightness(other, clock) == pytest.approx(straight, rel=1e-9)
        assert paths.path_energy(other, clock) == pytest.approx(energy, rel=1e-9)
    line = x[0] + (x[-1] - x[0]) * ((t - t[0]) / (t[-1] - t[0])).view(-1, 1, 1, 1)
    assert paths.rectified_straightness(line, t) == pytest.approx(0.0, abs=1e-18)
    assert paths.path_energy(line, t) == pytest.approx(chord, rel=1e-9)


T3, PATH = torch.linspace(0, 1, 3), torch.zeros(3, 5, 2)


CASES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: paths.bend(PATH, T3[:2]), ValueError, "times: shape (2,); must be (3,)"),
    (lambda: paths.bend(PATH[:2], T3[:2]), ValueError, "trajectory: shape (2, 5, 2)"),
    (lambda: paths.bend(PATH[:, :, 0], T3), ValueError, "trajectory: shape (3, 5)"),
    (lambda: paths.bend(PATH[:, :0], T3), ValueError, "trajectory: is empty"),
    (lambda: paths.bend(PATH * math.nan, T3), ValueError, "trajectory: 30 of 30 values"),
    (lambda: paths.bend(PATH, torch.tensor([0.0, 0.1, 1.0])), ValueError, "must be a uniform grid"),
    (lambda: paths.path_energy(PATH, torch.tensor([0.0, 1.0, 1.0])), ValueError, "strictly"),
    (lambda: paths.rectified_straightness(PATH, T3 * math.nan), ValueError, "times: 3 of 3 values"),
]


@pytest.mark.parametrize(("call", "kind", "message"), CASES, ids=range(len(CASES)))
def test_bad_input_is_named(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=re.escape(message)) as error:
        call()
    assert "\n" not in str(error.value)
