"""vsmd.metrics.points against exact values, and what a good, a shifted and a copying sample get."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from vsmd.metrics.points import Reference, classifier_auc, energy_distance, measures, tail_error


def draw(n: int, seed: int, d: int = 3) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_energy_distance_of_gaussians() -> None:
    """2 E|m + √2 Z| - 2 E|√2 Z| in closed form, and by hand for two points a set."""
    shift = 1.5
    folded = 2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4) + shift * (1 - 2 * norm.cdf(-shift / math.sqrt(2)))
    want = math.sqrt(2 * folded - 4 / math.sqrt(math.pi))
    assert energy_distance(draw(2_000, 0, 1), draw(2_000, 1, 1) + shift) == pytest.approx(want, rel=0.05)
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [3.0]])
    assert energy_distance(x, y) == pytest.approx(math.sqrt(2 * 6 / 4 - 2 / 4 - 6 / 4))
    assert energy_distance(x, x) == 0.0
    assert energy_distance(x.double() + 1e9, y.double() + 1e9) == pytest.approx(1.0, abs=1e-5)


def test_energy_distance_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = energy_distance(draw(200, 0), draw(150, 1) + 1)
    monkeypatch.setattr("vsmd.metrics.points.BLOCK", 1_000)
    assert energy_distance(draw(200, 0), draw(150, 1) + 1) == pytest.approx(whole, rel=1e-12)


def test_auc_of_equal_shifted_and_separate_laws() -> None:
    """1/2, Φ(shift/√2) at best, and 1."""
    x, y = draw(600, 0, 1), draw(600, 1, 1)
    assert classifier_auc(x, y, folds=3) == pytest.approx(0.5, abs=0.06)
    moved = classifier_auc(x, y + 1, folds=3)
    assert moved == pytest.approx(norm.cdf(1 / math.sqrt(2)), abs=0.05)
    assert classifier_auc(x, y + 10, folds=2) == pytest.approx(1, abs=1e-3)
    assert classifier_auc(x, y + 1, folds=3) == moved != classifier_auc(x, y + 1, folds=3, seed=1)
    with pytest.raises(ValueError, match=r"^folds=5: must be from 2 to the number of points, 3$"):
        classifier_auc(draw(3, 0), draw(9, 1))


def test_tail_error_is_relative_to_the_range() -> None:
    y = torch.linspace(-1, 1, 101, dtype=torch.float64)[:, None]
    assert tail_error(y, y) == 0.0
    assert tail_error(1.3 * y, y) == pytest.approx(0.3)
    assert tail_error(y + 0.49, y) == pytest.approx(0.5)
    both = torch.cat([y, y], 1)
    assert tail_error(torch.cat([y, 2 * y], 1), both, axes=1) == 0.0
    assert tail_error(torch.cat([y, 2 * y], 1), both) == pytest.approx(0.5)


def test_whitening_is_free_of_units_and_leaves_out_what_does_not_vary() -> None:
    x = draw(500, 0) @ draw(3, 9) + 5
    units = torch.tensor([1e-4, 1.0, 1e5], dtype=torch.float64)
    data = torch.cat([x * units, x[:, :1] + x[:, 1:2], torch.ones(500, 1)], 1)
    reference = Reference.of(data, data)
    z = reference.whiten(data)
    assert z.shape == (500, 3)
    assert torch.allclose(z.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(z.T.cov(), torch.eye(3, dtype=torch.float64), atol=1e-6)


def test_samples_of_the_law_score_the_floors() -> None:
    row = measures(draw(1_000, 2), draw(1_000, 0), draw(1_000, 1))
    for name in ("sw2", "energy", "auc", "tail_error", "memorised"):
        assert row[name] == pytest.approx(row[f"{name}_floor"], rel=0.35, abs=0.06), name
    assert len(row) == 10


def test_faults_are_seen_each_by_its_measure() -> None:
    train, test, fresh = draw(1_000, 0), draw(800, 1), draw(1_000, 2)
    reference = Reference.of(train, test)
    good, narrow = reference.measures(fresh), reference.measures(fresh * 0.6)
    assert narrow["sw2"] > 3 * good["sw2"]
    assert narrow["energy"] > 2 * good["energy"]
    assert narrow["tail_error"] == pytest.approx(0.4, abs=0.1)
    assert narrow["auc"] > good["auc"] + 0.1
    copies = reference.measures(train + 1e-3 * fresh)
    assert copies["memorised"] == pytest.approx(0.8 + 0.2 / 2, abs=0.05)  # 800 of 1,000 training points are looked at
    assert copies["sw2"] == pytest.approx(copies["sw2_floor"], rel=0.05)
    assert reference.measures(fresh) == good
    assert len(reference.floors) == 1  # taken once for the same number of samples
    quick = reference.measures(fresh, quick=True)
    assert quick == {name: good[name] for name in ("sw2", "energy", "sw2_floor", "energy_floor")}


def test_bad_points() -> None:
    with pytest.raises(ValueError, match=r"^train: all points are equal$"):
        Reference.of(torch.ones(5, 2), draw(5, 1, 2))
    reference = Reference.of(draw(50, 0), draw(50, 1))
    with pytest.raises(ValueError, match=r"^samples: points of shape \(2,\); must be \(3,\) as in test$"):
        reference.measures(draw(50, 2, 2))
    with pytest.raises(ValueError, match=r"^samples: 1 of 150 values are NaN or infinite"):
        reference.measures(np.where(np.arange(150).reshape(50, 3) == 4, np.nan, 0.0))


def test_tails_of_constants() -> None:
    """Equal constants have no error, others have no bound."""
    one = torch.stack([torch.arange(5.0), torch.ones(5)], 1)
    assert tail_error(one, one) == 0
    assert tail_error(one + torch.tensor([0.0, 1.0]), one) == math.inf
