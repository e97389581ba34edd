"""repro.studies.point_laws: what is known of a set before training, on laws that are known; a row made again."""

from __future__ import annotations

import math

import pytest
import torch

import vsmd
from repro.studies import point_laws, points
from vsmd.data.points import PointSet


def a_set(scale: float) -> PointSet:
    z = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    z[:, 2] = scale * z[:, 0] + z[:, 2]
    return PointSet("set", z[:240], z[240:300], z[300:], ("a", "b", "c"), "normal; source")


def test_distance_from_normal() -> None:
    """0 for a normal's own quantiles; of uniform ones on [-√3, √3] and of a shift what the integrals say."""
    levels = (torch.arange(4_000, dtype=torch.float64) + 0.5) / 4_000
    normal, uniform = torch.special.ndtri(levels), (2 * levels - 1) * 3**0.5
    found = point_laws.from_normal(torch.stack([normal.flip(0), uniform, normal + 0.3], 1))
    expected = math.sqrt(2 - 2 * math.sqrt(3 / math.pi))  # E XY = 2 √3 ∫ z Φ(z) φ(z) = √(3/π)
    assert found.tolist() == [pytest.approx(v, abs=2e-3) for v in (0, expected, 0.3)]


def test_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prior-KL grows with correlation, which standardising leaves; the description stands last."""
    rows = []
    for scale in (0.0, 10.0):
        monkeypatch.setattr(points, "load", lambda name, scale=scale: a_set(scale))
        rows += point_laws.law("set").tables["point_laws"]
    assert next(iter(rows[0])) == "dataset"
    assert list(rows[0])[-1] == "description"
    assert rows[0]["non_gaussianity"] < 0.3
    assert rows[1]["prior_kl"] > rows[0]["prior_kl"] + 1e-3
    assert rows[0]["kept"] is False


def test_a_row_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same model as the row's: the check draws from it by the row's solver, number and ending."""
    monkeypatch.setattr(points, "load", lambda name: a_set(1))
    monkeypatch.setattr(points, "TRAINING", {"batch_size": 32})
    monkeypatch.setattr(points, "NETWORK", {"name": "mlp", "width": 8, "depth": 1})
    plan = [{"prior": "moments", "solver": "exponential", "evaluations": [3], "denoise": True}]
    (row,) = points.run("set", "CLD", 0, 5, plan, part="test", R=1, steps=2, chosen=True).tables["points"]
    assert row["selected"] is True
    calls = {}
    check = vsmd.check

    def watched(*arguments: object, **options: object) -> object:
        calls.update(options)
        return check(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(vsmd, "check", watched)
    result = point_laws.checked(row)
    assert (calls["solver"], calls["steps"], calls["denoise"]) == ("exponential", 2, True)
    assert result.rows["sliced W2, whitened"][0] == pytest.approx(row["sw2"], rel=1e-6)
