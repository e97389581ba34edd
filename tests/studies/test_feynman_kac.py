"""Proposition 1's equations (4) along paths of the Gaussian bridge."""

from __future__ import annotations

import pytest

from repro.studies.feynman_kac import residuals


@pytest.mark.parametrize(("std", "damping"), [(8.0, 1.0), (0.5, 0.7)])
def test_both_potentials_follow_their_equations(std: float, damping: float) -> None:
    coarse, fine = (residuals(steps, std, damping=damping, paths=300) for steps in (200, 3_200))
    for few, many in zip(coarse, fine, strict=True):
        assert many < 0.2
        assert many < 0.45 * few  # 1/4 in the limit
