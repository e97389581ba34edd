r"""From a network to a score.

Only the score of the last component enters the dynamics (paper (10)–(11)). With v_0 marginalised (hybrid score
matching) a_t given x_0 is Gaussian with linear mean, so that a_t informs about x_0 through one number per direction,
z = (snr xi + n)/sqrt(1 + snr^2) with xi = x_0/std and n ~ N(0, 1) (`kernels.Channel`). The score is the exact one of
Gaussian data plus a multiple of E[target | z], target = (xi - snr n)/sqrt(1 + snr^2), which the network learns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from vsmd import checks
from vsmd.bases import Basis
from vsmd.coefficients import Coefficients
from vsmd.networks.contexts import Conditioning
from vsmd.potentials import Potential
from vsmd.processes import ForwardProcess


class _Watched(Tensor):
    """A tensor that no function of torch is applied to without an error."""

    @classmethod
    def __torch_function__(cls, *_: Any, **__: Any) -> Any:
        raise LookupError


LEAST_LOG_RATIO = -7.0  # of a direction's standard deviation to the mean one, below which it counts as constant


@dataclass(frozen=True)
class Score:
    """s(a, t) = gain . a + out net(inp . a, log_snr): the exact Gaussian score plus what the network adds.

    edge: standard deviations of z beyond which the network answers as at the edge, where no network has seen data.
    """

    process: ForwardProcess
    network: nn.Module
    edge: float = math.inf

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are."""
        return next((p.device for p in self.network.parameters()), torch.device("cpu"))

    def __call__(self, a: Tensor, at: Coefficients, context: Tensor | None = None) -> Tensor:
        """Score of the last component at states a (n, k, *shape), coefficients of one time; (n, *shape)."""
        return combine(at.gain, a) + at.out * self.residual(a, at, context)

    @staticmethod
    def control(a: Tensor, at: Coefficients) -> Tensor:
        """grad_v log phi_t of a mixture process at states a (n, k, *shape), coefficients of one time; (n, *shape)."""
        return Potential(*at.potential).pull(a)

    def residual(self, a: Tensor, at: Coefficients, context: Tensor | None = None) -> Tensor:
        """The network's share, E[target | a] (n, *shape)."""
        level = at.log_snr if at.log_snr.ndim == a.ndim - 1 else at.log_snr[None]
        return self.output(combine(at.inp, a), level, context)

    def output(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        """E[target | z] for z (n, *shape) at levels log_snr (n or 1, *shape)."""
        z = z if math.isinf(self.edge) else z.clamp(-self.edge, self.edge)
        return in_directions(self.network, self.process.basis, z, log_snr, context)

    def ignores(self, context: Tensor) -> bool:
        """Whether the network answers without a look at its context (n, …); the global random stream is left alone."""
        z = torch.zeros(len(context), *self.process.shape, device=self.device)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                self.output(z, z, context.as_subclass(_Watched))
        except Exception:  # where it is no look, the network's own call will say what is wrong
            return False
        return True

    def context_for(self, context: Any, n: int, optional: bool = False) -> Tensor | None:
        """The context for n points as the network takes it: one a point, or one row (a label) for all of them.

        optional: whether it may be left out of a network that takes one. Raises ValueError or TypeError in one line for
        a context that is missing, not taken, or not as the network's `Conditioning` has it.
        """
        takes: Conditioning | None = getattr(self.network, "conditioning", None)
        if context is None:
            if takes is not None and not optional:
                raise ValueError(f"context=None: the network takes {takes}; must be given")
            return None if takes is None else takes.none(n, self.device)
        value = torch.tensor(context) if isinstance(context, Real) else checks.tensor("context", context)
        if value.ndim == 0 or (takes is not None and takes.features > 1 and value.ndim == 1):
            value = value[None]
        if len(value) not in (1, n):
            raise ValueError(f"context: has {len(value)} rows; must have n={n}, or one for all")
        if takes is not None:
            value = takes.checked(value, len(value))
        elif self.ignores(value[:1]):
            raise ValueError(f"context: the model's network, {type(self.network).__name__}, takes none; leave it out")
        elif bool(value.isnan().any()):
            raise ValueError("context: must be finite, has NaN")
        return value.expand(n, *value.shape[1:])

    def denoise(self, a: Tensor, at: Coefficients, context: Tensor | None = None) -> Tensor:
        """E[x_0 | a_t] in directions, (n, *shape)."""
        if at.clean:
            signal, rest = at.clean
            std = self.process.known().std.to(a)
            return std * (signal * combine(at.inp, a) + rest * self.residual(a, at, context))
        snr = at.log_snr.exp()
        norm = (1 + snr.square()).sqrt()
        std = self.process.known().std.to(a)
        return std / norm * (snr * combine(at.inp, a) + self.residual(a, at, context))


def in_directions(network: nn.Module, basis: Basis, z: Tensor, log_snr: Tensor, context: Tensor | None) -> Tensor:
    """A network's output for z (n, *shape) in directions; a backbone of images works in data coordinates."""
    if getattr(network, "backbone", False):
        return preconditioned(network, basis, z, log_snr, context)
    return network(z, log_snr, context)


def preconditioned(backbone: nn.Module, basis: Basis, z: Tensor, log_snr: Tensor, context: Tensor | None) -> Tensor:
    r"""E[target | z] by a backbone that sees the noisy image with one level of white noise, in data coordinates.

    With l = log snr per direction, e^{2m} = mean e^{2l} and w = e^{l - m} (relative standard deviations),

        y = z √(1 + e^{2l}) / √(1 + e^{2m})            signal in the process's units and white noise of one level,
        net = B'U(B y, m) · (1/w + w e^{2m}) / √((1 + e^{2l}) (1 + e^{2m})),

    B turns directions into data coordinates: an orthonormal turn keeps white noise white. U(image, level, context) maps
    (n, C, H, W) and (n or 1,) to (n, C, H, W), as a denoiser's "v"; zero is the exact score of Gaussian data with the
    full covariance that the basis gives them. A backbone with `levels` gets log w as C further channels: of every
    pixel where directions are pixels, zero in another basis, where all pixels have the same noise.
    """
    power, mean, level, ratio = _shared_level(log_snr)
    w = ratio.exp()
    image = basis.back(z * ((1 + power) / (1 + mean)).sqrt())
    if getattr(backbone, "levels", False):
        pixels = ratio if basis.name == "coordinates" else torch.zeros_like(ratio)
        image = torch.cat([image, pixels.expand_as(z)], 1)
    out = basis.into(backbone(image, level.flatten(), context).to(z.dtype))
    return out * (1 / w + w * mean) * ((1 + power) * (1 + mean)).rsqrt()


def backbone_gain(log_snr: Tensor) -> Tensor:
    """What a backbone's output is multiplied with in `preconditioned`, per direction; 1 where all have one level."""
    power, mean, _, ratio = _shared_level(log_snr)
    w = ratio.exp()
    return (1 / w + w * mean) * ((1 + power) * (1 + mean)).rsqrt()


def _shared_level(log_snr: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """e^{2l} per direction and its mean e^{2m}, m, and log w = l - m, which a constant direction bounds."""
    power = (2 * log_snr).exp()
    mean = power.mean(tuple(range(1, log_snr.ndim)), keepdim=True)
    level = 0.5 * mean.clamp(min=1e-24).log()
    return power, mean, level, (log_snr - level).clamp(min=LEAST_LOG_RATIO)


def combine(row: tuple[Tensor, ...], a: Tensor) -> Tensor:
    """row . a per direction: sum_j row_j a[:, j]."""
    return row[0] * a[:, 0] if len(row) == 1 else torch.addcmul(row[0] * a[:, 0], row[1], a[:, 1])
