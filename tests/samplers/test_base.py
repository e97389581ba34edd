"""vsmd.samplers.base: the grid of times."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vsmd.samplers import time_grid


@given(st.integers(1, 300), st.floats(1e-6, 0.5), st.floats(0.5, 7))
def test_time_grid(steps: int, t_min: float, power: float) -> None:
    """Strictly falling from 1 to t_min, uniform in t^{1/power}."""
    grid = time_grid(steps, t_min, power)
    assert grid.dtype == torch.float64
    assert grid.shape == (steps + 1,)
    assert float(grid[0]) == pytest.approx(1, abs=1e-12)
    assert float(grid[-1]) == pytest.approx(t_min, rel=1e-9)
    assert bool((grid.diff() < 0).all())
    gaps = (grid ** (1 / power)).diff()
    torch.testing.assert_close(gaps, gaps[:1].expand(steps), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, r"^steps=0: must be an integer >= 1$"),
        ({"steps": 2.5}, r"^steps=2.5: must be"),
        ({"steps": 5, "t_min": 0.0}, r"^t_min=0.0: must be a number between"),
        ({"steps": 5, "t_min": math.nan}, r"^t_min=nan: must be"),
        ({"steps": 5, "power": -1.0}, r"^power=-1.0: must be"),
    ],
)
def test_bad_grids(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        time_grid(**arguments)
