"""The study of mixture scores: a fit that ends in the prior, one that cannot, and rows of what parts a step has."""

from __future__ import annotations

from itertools import product

import pytest

from repro.studies import mixture_scores, toys


def test_where_a_fit_ends() -> None:
    """One component steers two moments and keeps the shape; several get nearer; both end with the right moments."""
    one, eight = (
        mixture_scores.ends("checkerboard-6X", 0, components=n, steps=300).tables["mixture_scores"][0] for n in (1, 8)
    )
    assert (one["components"], eight["components"], one["beta"], one["method"]) == (1, 8, 2, "VSCLD")
    assert abs(one["moments_kl"]) < 1e-3
    assert abs(eight["moments_kl"]) < 0.02
    assert eight["end_kl"] < 0.7 * one["end_kl"]
    assert 0 < eight["correlation"] < 1


def test_parts_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toys, "quality", lambda x, *_, **__: {"pmf_rmse": float(x[:, 1].std())})
    monkeypatch.setattr(mixture_scores, "POWERS", (1, 2))
    rows = mixture_scores.control_parts("moons-8Y", 0, components=3, steps=3, samples=300).tables["mixture_parts"]
    asked = list(product(mixture_scores.PARTS, (1, 2), mixture_scores.EVALUATIONS))
    assert [(row["parts"], row["grid_power"], row["nfe"]) for row in rows] == asked
    stds = [row["pmf_rmse"] for row in rows]
    assert all(1 < std < 20 for std in stds)  # in the data's units, stretched by 8
    assert len(set(stds)) == len(stds)  # each drawn its own way
