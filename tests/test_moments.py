"""vsmd.moments: bad moments are named; the averages of streams are tested with the bases that take them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from vsmd.moments import Moments, averaged


def test_given() -> None:
    moments = Moments.given(0.0, torch.tensor([1.0, 4.0]), (3, 2))
    assert moments.var.shape == (3, 2)
    assert moments.mean.dtype == moments.var.dtype == torch.float64
    assert moments.std[0].tolist() == [1, 2]


def test_standardising_leaves_constant_directions_alone() -> None:
    moments = Moments.given(0.0, torch.tensor([0.0, 4.0]), (2,))
    assert moments.unit.tolist() == [1, 2]
    assert moments.unit.dtype == torch.float32


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
