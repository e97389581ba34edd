"""vsmd.moments: bad moments are named; the averages of streams are tested with the bases that take them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from vsmd.moments import Moments, averaged, told


def test_given() -> None:
    moments = Moments.given(0.0, torch.tensor([1.0, 4.0]), (3, 2))
    assert moments.var.shape == (3, 2)
    assert moments.mean.dtype == moments.var.dtype == torch.float64
    assert moments.std[0].tolist() == [1, 2]


def test_standardising_leaves_constant_directions_alone() -> None:
    moments = Moments.given(0.0, torch.tensor([0.0, 4.0]), (2,))
    assert moments.unit.tolist() == [1, 2]
    assert moments.unit.dtype == torch.float32


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
@pytest.mark.parametrize("place", [0, 9, 39])
def test_other_moments_are_told_in_any_direction_at_any_scale(scale: float, place: int) -> None:
    mean, std = torch.zeros(40, dtype=torch.float64), torch.ones(40, dtype=torch.float64)
    std[3] = 0.0
    moved, wider = mean.clone(), std.clone()
    moved[place], wider[place] = 0.1, 1.1
    seen = told(scale * mean, scale * std)
    assert len({seen, told(scale * moved, scale * std), told(scale * mean, scale * wider)}) == 3
    assert len({seen, told(mean, 2 * scale * std), told(scale * mean, scale * std.flip(0))}) == 3
    assert told(scale * (mean - 1e-12), scale * std * (1 + 1e-12)) == seen == told(-0.0 * mean, scale * std)


@pytest.mark.parametrize(
    ("mean", "var", "message"),
    [
        (0.0, -1.0, r"^var=-1 at its least: must be >= 0$"),
        (0.0, math.nan, r"^var: must be finite, has NaN or inf$"),
        (torch.zeros(3), 1.0, r"^mean: shape \(3,\); must be a number or \(2,\)$"),
    ],
)
def test_bad_moments(mean: Any, var: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Moments.given(mean, var, (2,))


def test_one_point_is_not_enough() -> None:
    with pytest.raises(ValueError, match=r"^data: 1 points; moments need at least 2$"):
        averaged(torch.ones(1, 2), lambda rows: rows.square().sum(0))
