"""Networks that are told what is known – history, scales, calendar – and a residual perceptron for vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vsmd.networks.contexts import Conditioning
from vsmd.networks.layers import zeroed
from vsmd.networks.mlp import MLP


class Conditional(nn.Module, ABC):
    """net(z, log_snr, context) = value(z, log_snr, encode(context)): the context's part is computed by `encode`.

    Samplers encode once for all the solver's steps and use `on_codes()`, the same network taking codes in place of the
    context. bf16: matrix products in bfloat16 (autocast); parameters, inputs and results stay float32.
    """

    bf16 = False

    @abstractmethod
    def encode(self, context: Tensor | None) -> Tensor | None:
        """Codes (n, width) of contexts; None for an unconditional network."""

    @abstractmethod
    def value(self, z: Tensor, log_snr: Tensor, codes: Tensor | None) -> Tensor:
        """The network's value for encoded contexts."""

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which the network's own work is done."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bf16)

    def on_codes(self) -> nn.Module:
        """The same network (shared weights) as net(z, log_snr, codes), for samplers."""
        return _OnCodes(self)

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        with self.autocast(z.device):
            return self.value(z, log_snr, self.encode(context)).to(z.dtype)


class _OnCodes(nn.Module):
    """A view of a network that takes codes; it has its weights."""

    def __init__(self, network: Conditional) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor, log_snr: Tensor, codes: Tensor | None = None) -> Tensor:
        with self.network.autocast(z.device):
            return self.network.value(z, log_snr, codes).to(z.dtype)


class ConditionalMLP(Conditional, MLP):
    """h <- h + silu(W h + E(noise level) + C(context)): an `MLP` that is told a context; the last map starts at zero.

    net(z, log_snr, context): z and the result (n, *shape), context (n, features) real or labels (n,) of `classes`;
    codes (n or 1, depth * width) are what it adds to the layers, none for a context that is left out (`Conditioning`).
    C's last map starts at zero as well, so training starts from the unconditional Gaussian score. With features = 0 and
    classes = 0 (default) it is unconditional, context None. units: mean and standard deviation of the features, (2,
    features), that are taken out of them first (default None).
    Raises ValueError for a context that is missing or has another width, and where features and labels are asked for.
    """

    name = "conditional"
    units: Tensor | None

    def __init__(
        self,
        shape: tuple[int, ...],
        features: int = 0,
        width: int = 128,
        depth: int = 3,
        frequencies: int = 16,
        bf16: bool = False,
        classes: int = 0,
        units: Sequence[Sequence[float]] | None = None,
    ) -> None:
        super().__init__(shape, width, depth, frequencies)
        if features and classes:
            raise ValueError(f"features={features}, classes={classes}: must be one of them, features or labels")
        self.features, self.bf16 = features, bool(bf16)
        self.settings = {
            "shape": self.settings["shape"], "features": features, "width": width, "depth": depth,
            "frequencies": frequencies, "bf16": self.bf16,
        }  # fmt: skip
        self.settings |= ({"classes": classes} if classes else {}) | ({} if units is None else {"units": units})
        self.conditioning = Conditioning(classes, features) if features or classes else None
        self.register_buffer("units", None if units is None else torch.tensor(units), persistent=False)
        self.encoder: nn.Module
        if features:
            end = nn.Linear(width, depth * width)
            self.encoder = nn.Sequential(nn.Linear(features, width), nn.SiLU(), zeroed(end))
        elif classes:
            self.encoder = zeroed(nn.Embedding(classes, depth * width))

    def encode(self, context: Tensor | None) -> Tensor | None:
        """Codes (n, depth * width) of contexts (n, …); None for an unconditional network."""
        if self.conditioning is None:
            return None
        tail = (self.features,) if self.features else ()
        if context is None or context.ndim == 0 or context.shape[1:] != tail:
            got = None if context is None else tuple(context.shape)
            raise ValueError(f"context={got}: must be a tensor of shape (n, {self.features or ''})")
        known = self.conditioning.present(context)
        context = context.clamp(min=0) if not self.features else context.masked_fill(~known[:, None], 0)
        if self.units is not None:
            context = (context - self.units[0]) / self.units[1]
        with self.autocast(context.device):
            codes = self.encoder(context)
        return torch.where(known[:, None], codes.to(context.dtype) if self.features else codes, 0)

    def value(self, z: Tensor, log_snr: Tensor, codes: Tensor | None) -> Tensor:
        """The network's value for encoded contexts."""
        return self.perceptron(z, log_snr, codes)
