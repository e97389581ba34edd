r"""The one loss: pairs of network input and target from a batch, and the weighted square that training minimises.

The denoising loss E |eps_v - eps_v^|^2 of the momentum process is, sample by sample (`vsmd.scores`),

    kappa^2 |target - net(z, log snr)|^2,   z = (snr xi + n)/sqrt(1 + snr^2),   target = (xi - snr n)/sqrt(1 + snr^2):

training costs what a plain denoiser costs, and every method sees the same problem along its own path of signal-to-noise
ratios. kappa^2 is one weighting of the levels of noise; `WEIGHTINGS` names others. Whatever is trained or compared –
other objectives too – is a `Pairs` and its `loss`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vsmd import checks, kernels
from vsmd.bases import Basis
from vsmd.processes import ForwardProcess
from vsmd.scores import backbone_gain, combine, in_directions

# Weight of |target - net|^2 at signal-to-noise ratios snr: kappa^2, what the score's error costs in units of the noise;
# 1, the target's own variance everywhere; or 1 in the output of a backbone of images, before `scores.preconditioned`.
WEIGHTINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "score": lambda kappa, log_snr: kappa.square(),
    "unit": lambda kappa, log_snr: torch.ones_like(kappa),
    "backbone": lambda kappa, log_snr: backbone_gain(log_snr).square().reciprocal().expand_as(kappa),
}


def weighting_of(name: str, network: nn.Module) -> str:
    """The weighting, checked against the network; ValueError for an unknown one, or "backbone" where there is none."""
    if checks.one_of("weighting", name, WEIGHTINGS) == "backbone" and not getattr(network, "backbone", False):
        raise ValueError(f"weighting='backbone': {type(network).__name__} is no backbone of images; use 'unit'")
    return name


class Pairs(NamedTuple):
    """What a loss is made of: input z, log levels, target, weights, all (n, *shape), and context (n, …) or None."""

    z: Tensor
    log_snr: Tensor
    target: Tensor
    weight: Tensor
    context: Tensor | None

    def map(self, f: Callable[[Tensor], Tensor]) -> Pairs:
        """Apply `f` to every tensor: move them, or take some rows."""
        return Pairs(*(None if v is None else f(v) for v in self))  # type: ignore[arg-type]


def hybrid_pairs(
    xi: Tensor, snr: Tensor, kappa: Tensor, noise: Tensor, context: Tensor | None = None, weighting: str = "score"
) -> Pairs:
    """Pairs of standardised data xi at amplitudes snr with noise n; all (n, *shape). weighting: see `WEIGHTINGS`."""
    norm = (1 + snr.square()).rsqrt()
    z, target = (snr * xi + noise) * norm, (xi - snr * noise) * norm
    log_snr = kernels.log_level(snr)
    return Pairs(z, log_snr, target, WEIGHTINGS[weighting](kappa, log_snr), context)


def plain_pairs(
    process: ForwardProcess,
    x: Tensor,
    t: Tensor,
    stream: torch.Generator,
    context: Tensor | None = None,
    weighting: str = "score",
) -> Pairs:
    """Pairs of plain score matching at times t (n,): a_t drawn given (x_0, v_0), target -eps_v / L_vv of N.

    x (n, *shape): in directions. The same minimiser as the hybrid loss with more variance; k = 1 has no v_0 and gives
    the hybrid pairs.
    """
    kernel = process.kernel(t)
    chol = kernels.lower_cholesky(kernel, 0.0)
    channel = kernels.channel(kernel, kernels.lower_cholesky(kernel), process.known().std)
    start = [x.double()] + [torch.randn(x.shape, generator=stream, dtype=torch.float64) for _ in chol[1:2]]
    eps = [torch.randn(x.shape, generator=stream, dtype=torch.float64) for _ in start]
    mean = [sum(f * s for f, s in zip(row, start)) for row in kernel.mean]
    a = [mean[0] + chol[0] * eps[0]]
    if process.k == 2:
        a.append(mean[1] + chol[1] * eps[0] + chol[2] * eps[1])
    score = -eps[-1] / chol[-1]
    state = torch.stack(a, 1)
    out = torch.where(channel.out.abs() > 1e-12, channel.out, torch.full_like(channel.out, torch.inf))
    z, target = combine(channel.inp, state).float(), ((score - combine(channel.gain, state)) / out).float()
    log_snr, kappa = kernels.log_level(channel.snr.float()), channel.kappa.float()
    return Pairs(z, log_snr, target, WEIGHTINGS[weighting](kappa, log_snr), context)


def at_levels(
    xi: Tensor,
    levels: tuple[Tensor, ...],
    noise: Tensor,
    ends: Tensor | None,
    context: Tensor | None = None,
    weighting: str = "score",
) -> Pairs:
    """Pairs of standardised data xi at the `levels` of `process.snr`, with noise and `process.ends`; all (n, *shape).

    Hybrid pairs, of a mixture process (`vsmd.bridges`) with noise n = reach . Delta + sqrt(var_n) noise in the channel,
    ends: Delta (n, k, *shape), and of z and target what `Statistic` says.
    """
    snr, kappa, *moments = levels
    if ends is None:
        return hybrid_pairs(xi, snr, kappa, noise, context, weighting)
    var, slope, rest, var_n, *reach = moments
    noise = var_n.sqrt() * noise + combine(tuple(reach), ends)
    raw = hybrid_pairs(xi, snr, kappa, noise, context, weighting)
    return raw._replace(z=raw.z * var.rsqrt(), target=(raw.target - slope * raw.z) / rest)


def pairs_at(
    process: ForwardProcess,
    x: Tensor,
    t: Tensor,
    stream: torch.Generator,
    context: Tensor | None = None,
    weighting: str = "score",
) -> Pairs:
    """Pairs of data x (n, *shape) at times t (n,), noise from `stream`: for losses on held-out data."""
    levels = tuple(e.expand_as(x).float() for e in process.snr(t))
    noise, ends = torch.randn(x.shape, generator=stream), process.ends(x, stream)
    return at_levels(process.standardised(x), levels, noise, ends, context, weighting)


def loss(network: nn.Module, basis: Basis, pairs: Pairs) -> Tensor:
    """E weight |target - net|^2, averaged over rows and directions; differentiable."""
    out = in_directions(network, basis, pairs.z, pairs.log_snr, pairs.context)
    return (pairs.weight * (out - pairs.target).square()).mean()
