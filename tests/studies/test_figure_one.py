"""repro.studies.figure_one: what the untrained bridge is known to be, and rows as declared."""

from __future__ import annotations

import pytest
import torch

from repro.studies import figure_one
from repro.studies import simulated_bridges as sb


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure_one, "POINTS", 2_000)
    monkeypatch.setattr(
        sb.train, "__kwdefaults__", dict(sb.train.__kwdefaults__ or {}) | {"batch_size": 16, "paths": 32}
    )


def test_gaussian_kl() -> None:
    """Of standard normals nothing; of one direction of standard deviation 2, (4 - 1 - log 4)/2."""
    x = torch.randn(200_000, 2, 2, generator=torch.Generator().manual_seed(0))
    assert figure_one.gaussian_kl(x) == pytest.approx(0.0, abs=1e-3)
    x[:, 0, 1] *= 2
    assert figure_one.gaussian_kl(x) == pytest.approx((4 - 1 - 1.386) / 2, rel=0.02)


@pytest.mark.parametrize(("method", "low", "high"), [("mSB", 0.9, 1.05), ("SB", 0.4, 0.75)])
def test_rows(method: str, low: float, high: float) -> None:
    """Paths with velocity are smooth, those without are not; nothing is trained yet, so control is small."""
    (row,) = figure_one.run(method, 0, steps=4, stages=1, grid=200 if method == "SB" else 40).tables["figure_one"]
    assert low < row["hoelder"] < high
    assert row["prior_kl"] > 0
    assert row["train_steps"] == 4
    assert row["train_seconds"] > 0


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"^method='mSB-standardised': must be one of"):
        figure_one.run("mSB-standardised", 0)
