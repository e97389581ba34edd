"""Samplers given as data are checked each time that they answer, and what they did wrong is not the learning rate's."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from vsmd import fit, forward_process, latent
from vsmd.training.data import Source

Change = Callable[[Tensor, Tensor], Any]


class Later:
    """Normal points, until the answer of the `first` call is changed."""

    def __init__(self, change: Change, first: int = 6, told: bool = False) -> None:
        self.change, self.first, self.told, self.calls = change, first, told, 0

    def __call__(self, n: int, generator: torch.Generator) -> Any:
        self.calls += 1
        x, context = torch.randn(n, 2, generator=generator), torch.arange(n) % 3
        if self.calls >= self.first:
            return self.change(x, context)
        return (x, context) if self.told else x


BAD: dict[str, tuple[Change, bool, type[Exception], str]] = {
    "one row": (
        lambda x, _: x[:1],
        False,
        ValueError,
        r"^data: shape \(1, 2\) must be \(n, 2\) with n = 16, as it was",
    ),
    "too few": (
        lambda x, _: x[:7],
        False,
        ValueError,
        r"^data: shape \(7, 2\) must be \(n, 2\) with n = 16, as it was",
    ),
    "a shape": (lambda x, _: x[:, :1], False, ValueError, r"^data: shape \(16, 1\) must be \(n, 2\)"),
    "whole": (lambda x, _: x.long(), False, TypeError, r"^data: dtype torch.int64 must be a floating one"),
    "NaN": (lambda x, _: x.index_fill(0, torch.tensor([3]), math.nan), False, ValueError, r"^data: .* 1 of 16 rows"),
    "inf": (lambda x, _: x.index_fill(0, torch.tensor([3]), math.inf), False, ValueError, r"^data: .* 1 of 16 rows"),
    "no context": (lambda x, _: x, True, ValueError, r"^context: the sampler has answered without one; must be labels"),
    "few labels": (
        lambda x, c: (x, c[:3]),
        True,
        ValueError,
        r"^context: has 3 rows, must have one for each of the \d+ points",
    ),
    "high labels": (lambda x, c: (x, c + 7), True, ValueError, r"^context: labels from 7 to 9"),
}


@pytest.mark.parametrize("case", BAD)
def test_every_answer_is_checked(case: str) -> None:
    change, told, error, message = BAD[case]
    with pytest.raises(error, match=message):
        fit(forward_process("CLD", (2,)), Later(change, told=told), steps=40, batch_size=16)


def test_the_autoencoder_is_not_blamed_either() -> None:
    with pytest.raises(ValueError, match=r"^data: must be finite, 16 of 16 rows"):
        latent.pretrain(latent.VectorAutoencoder((2,), 1), Later(lambda x, _: x * math.nan), steps=60, batch_size=16)


def test_large_numbers_are_finite() -> None:
    """Their sum is not."""
    source = Source(lambda n, generator: torch.full((n, 2), 3e38), (2,))
    assert len(source.draw(9, torch.Generator()).x) == 9


def test_the_check_costs_nothing() -> None:
    """One sum of a batch of images, beside drawing them."""
    x, stream = torch.randn(256, 3, 32, 32), torch.Generator().manual_seed(0)
    source = Source(lambda n, generator: x, (3, 32, 32))
    seconds = []
    for action in (lambda: source.draw(256, stream), lambda: torch.randn(x.shape, generator=stream)):
        times = []
        for _ in range(7):
            begun = time.perf_counter()
            action()
            times.append(time.perf_counter() - begun)
        seconds.append(min(times))
    assert seconds[0] < seconds[1]
