"""vsmd.metrics.neighbours: one half for fresh draws, one for copies, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from vsmd.metrics import memorisation


def draw(n: int, seed: int, d: int = 3) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_fresh_draws_copies_and_near_copies() -> None:
    train, held_out, fresh = draw(1_000, 0), draw(1_500, 1), draw(2_000, 2)
    assert memorisation(fresh, train, held_out) == pytest.approx(0.5, abs=5 * 0.5 / 2_000**0.5)
    assert memorisation(train, train, held_out) == 1.0
    assert memorisation(held_out[:1_000], train, held_out) == 0.0
    assert memorisation(train + 1e-3 * draw(1_000, 3), train, held_out) > 0.98


def test_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    train, held_out, fresh = draw(100, 0), draw(100, 1), draw(257, 2)
    whole = memorisation(fresh, train, held_out)
    monkeypatch.setattr("vsmd.metrics.neighbours.BLOCK", 1_000)
    assert memorisation(fresh, train, held_out) == whole


def test_bad_sets() -> None:
    with pytest.raises(ValueError, match=r"^train: 2 numbers a row, held_out 3; must be 3 as samples$"):
        memorisation(draw(5, 0), draw(5, 1, 2), draw(5, 2))
    with pytest.raises(ValueError, match=r"^samples: 1 of 15 values are NaN"):
        memorisation(
            draw(5, 0).index_put((torch.tensor([0]), torch.tensor([0])), torch.tensor(torch.nan)),
            draw(5, 1),
            draw(5, 2),
        )
