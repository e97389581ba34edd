"""Samples of a plan: calls counted and no longer watched after, priors in the plan's order."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vsmd
from repro.studies.drawing import by_prior, counted
from repro.studies.plans import Draw
from vsmd.model import Model
from vsmd.random import generator


def test_calls_are_counted_a_path_and_only_while_drawing() -> None:
    network = nn.Linear(2, 2)

    def sample(rows: int, value: float = 0.0) -> torch.Tensor:
        return sum((network(torch.zeros(5, 2)) for _ in range(rows)), torch.full((5, 2), value))

    x, calls = counted(network, 99, lambda: sample(3))
    assert (x.shape, calls) == ((5, 2), 3)
    assert counted(network, 99, lambda: sample(3, torch.nan))[1] == 99  # diverged
    with pytest.raises(ZeroDivisionError):
        counted(network, 99, lambda: sample(1 // 0))
    assert not network._forward_hooks


def test_draws_by_prior() -> None:
    process = vsmd.forward_process("CLD", (2,)).with_moments(torch.zeros(2), torch.ones(2))
    draws = [Draw("heun", 4, "moments"), Draw("heun", 4, "gaussian"), Draw("euler", 3, "moments")]
    points = torch.randn(50, 2, generator=generator(0, "points"))
    groups = list(by_prior(Model(process, nn.Identity()), draws, points, 0))
    assert [(model.process.prior, its_draws) for model, its_draws in groups] == [
        ("moments", [draws[0], draws[2]]), ("gaussian", [draws[1]]),
    ]  # fmt: skip
