"""A mixture of two Gaussians in one dimension, its exact network, and processes for it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vsmd.coefficients import Coefficients
from vsmd.family import forward_process
from vsmd.processes import ForwardProcess


class Zero(nn.Module):
    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.zeros_like(z)


class Posterior(nn.Module):
    """E[target | z] in one dimension for standardised data xi ~ sum_i w_i N(m_i, v_i): a function of z and snr."""

    def __init__(self, weights: Tensor, means: Tensor, variances: Tensor) -> None:
        super().__init__()
        self.w, self.m, self.v = weights, means, variances

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        snr = log_snr.double().exp()
        norm = (1 + snr**2).sqrt()
        y = (z.double() * norm)[..., None]  # snr xi + n
        level = snr[..., None]
        spread = level**2 * self.v + 1
        logits = self.w.log() - 0.5 * spread.log() - 0.5 * (y - level * self.m) ** 2 / spread
        means = self.m + level * self.v / spread * (y - level * self.m)
        xi = (logits.softmax(-1) * means).sum(-1)
        return (xi - snr * (y[..., 0] - snr * xi)) / norm


# 0.3 N(-1.5, .25) + 0.7 N(mu, .09), centred
WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)
MEANS = torch.tensor([-1.5, 1.5 * 0.3 / 0.7], dtype=torch.float64)
VARIANCES = torch.tensor([0.25, 0.09], dtype=torch.float64)
VAR = float((WEIGHTS * (MEANS**2 + VARIANCES)).sum())
STD = math.sqrt(VAR)
POSTERIOR = Posterior(WEIGHTS, MEANS / STD, VARIANCES / VAR)


def process_for(method: str, scale: float = 1.0, matching: str = "hybrid") -> ForwardProcess:
    """The process for the mixture stretched by `scale`; a stiffness of its own where A is adaptive."""
    process = forward_process(method, (1,), beta=6.0, score_matching=matching)
    if process.variational_score == "adaptive":
        process = process.with_stiffness(torch.tensor([[3.0]]))
    return process.with_moments(torch.zeros(1), torch.tensor([VAR * scale**2], dtype=torch.float64))


def at(process: ForwardProcess, t: float) -> Coefficients:
    return process.coefficients(torch.tensor([t], dtype=torch.float64), dtype=torch.float64).at(0)
