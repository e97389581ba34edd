r"""From a network to a score, and the loss that trains it.

Only the score of the last component enters the dynamics (paper (10)–(11)). With v_0 marginalised (hybrid score
matching) a_t given x_0 is Gaussian with linear mean, so that a_t informs about x_0 through one number per direction
(`kernels.Channel`). The denoising loss E |eps_v - eps_v^|^2 of the momentum process *is* then, sample by sample,

    kappa^2 |target - net(z, log snr)|^2,   z = (snr xi + n)/sqrt(1 + snr^2),   target = (xi - snr n)/sqrt(1 + snr^2),

with xi = x_0/std and n ~ N(0, I): training costs what a plain denoiser costs, and every method sees the same problem
along its own path of signal-to-noise ratios.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vsmd import kernels
from vsmd.processes import Coefficients, ForwardProcess


@dataclass(frozen=True)
class Score:
    """s(a, t) = gain . a + out net(inp . a, log_snr): the exact Gaussian score plus what the network adds."""

    process: ForwardProcess
    network: nn.Module

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are."""
        return next((p.device for p in self.network.parameters()), torch.device("cpu"))

    def __call__(self, a: Tensor, at: Coefficients, context: Tensor | None = None) -> Tensor:
        """Score of the last component at states a (n, k, *shape), coefficients of one time; (n, *shape)."""
        return combine(at.gain, a) + at.out * self.residual(a, at, context)

    def residual(self, a: Tensor, at: Coefficients, context: Tensor | None = None) -> Tensor:
        """The network's share, E[target | a] (n, *shape)."""
        level = at.log_snr if at.log_snr.ndim == a.ndim - 1 else at.log_snr[None]
        return in_directions(self.network, self.process, combine(at.inp, a), level, context)

    def denoise(self, a: Tensor, at: Coefficients, context: Tensor | None = None) -> Tensor:
        """E[x_0 | a_t] in directions, (n, *shape)."""
        snr = at.log_snr.exp()
        norm = (1 + snr.square()).sqrt()
        std = self.process.known().var.sqrt().to(a)
        return std / norm * (snr * combine(at.inp, a) + self.residual(a, at, context))


def in_directions(
    network: nn.Module, process: ForwardProcess, z: Tensor, level: Tensor, context: Tensor | None
) -> Tensor:
    """The network's output for z (n, *shape) in directions; a `spatial` one sees and answers in data coordinates."""
    if process.basis is not None and getattr(network, "spatial", False):
        return process.rotate(network(process.rotate(z, back=True), level, context))
    return network(z, level, context)


def combine(row: tuple[Tensor, ...], a: Tensor) -> Tensor:
    """row . a per direction: sum_j row_j a[:, j]."""
    return row[0] * a[:, 0] if len(row) == 1 else torch.addcmul(row[0] * a[:, 0], row[1], a[:, 1])


def hybrid_pair(xi: Tensor, snr: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Network input z and target for standardised data xi at levels snr; all (n, *shape)."""
    norm = (1 + snr.square()).rsqrt()
    return (snr * xi + noise) * norm, (xi - snr * noise) * norm


def plain_pair(process: ForwardProcess, x: Tensor, t: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Network input and target of plain score matching: a_t drawn given (x_0, v_0), target -eps_v / L_vv of N.

    The same minimiser as the hybrid loss with more variance; k = 1 has no v_0 and gives the hybrid pair.
    """
    kernel = process.kernel(t)
    chol = kernels.lower_cholesky(kernel, 0.0)
    ch = kernels.channel(kernel, kernels.lower_cholesky(kernel), process.known().var.sqrt())
    start = [x.double()] + [torch.randn(x.shape, generator=generator, dtype=torch.float64) for _ in chol[1:2]]
    eps = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for _ in start]
    mean = [sum(f * s for f, s in zip(row, start)) for row in kernel.mean]
    a = [mean[0] + chol[0] * eps[0]]
    if process.k == 2:
        a.append(mean[1] + chol[1] * eps[0] + chol[2] * eps[1])
    score = -eps[-1] / chol[-1]
    state = torch.stack(a, 1)
    out = torch.where(ch.out.abs() > 1e-12, ch.out, torch.full_like(ch.out, torch.inf))
    return combine(ch.inp, state).float(), ((score - combine(ch.gain, state)) / out).float()
