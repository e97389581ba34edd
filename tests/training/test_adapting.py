"""vsmd.training.adapting: beyond the edge of the law a network is asked as at the edge, so A cannot run off with it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vsmd.adaptation import Adaptation
from vsmd.family import forward_process
from vsmd.scores import Score
from vsmd.training.adapting import EDGE, backward_moments


class Wild(nn.Module):
    """Zero inside the law, anything outside it."""

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        return 30 * (z.abs() - EDGE).clamp(min=0)


class Zero(nn.Module):
    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.zeros_like(z)


@pytest.mark.parametrize("method", ["VSCLD", "VSDM"])
def test_what_a_network_says_outside_the_law_does_not_count(method: str) -> None:
    process = forward_process(method, (1,), beta=5.0).with_moments(torch.zeros(1), torch.tensor([350.0]))
    process = process.with_stiffness(torch.full((1, 1), 12.0))  # ends six times narrower than the target start
    how = Adaptation(paths=500, nodes=20)
    seen: list[float] = []

    class Watching(Wild):
        def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
            seen.append(float(z.abs().max()))
            return super().forward(z, log_snr, context)

    calm = backward_moments(Score(process, Zero()), how, 0, 1)
    wild = backward_moments(Score(process, Watching()), how, 0, 1)
    assert max(seen) == EDGE  # it was asked there
    for a, b in zip(calm, wild, strict=True):
        assert torch.equal(a, b)
