"""How a training step is computed: precision, memory layout, compilation, accumulation; not what it computes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vsmd import checks
from vsmd.networks import with_traits

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Compute:
    """How a step is computed; but for rounding, results do not depend on it.

    Raises ValueError for an unknown precision or accumulate < 1.
    """

    precision: str = "float32"  # or "bfloat16": the network under autocast; the rest stays float32
    channels_last: bool = False  # the layout that convolutions on GPUs like, for data (C, H, W)
    compile: bool = False  # `torch.compile` the network
    accumulate: int = 1  # micro-batches that each process splits its share of a batch into, to save memory

    def __post_init__(self) -> None:
        for name in ("channels_last", "compile"):
            checks.flag(name, getattr(self, name))
        checks.one_of("precision", self.precision, PRECISIONS)
        checks.positive_int("accumulate", self.accumulate)

    def laid_out(self, network: nn.Module) -> nn.Module:
        """The network with its weights in the layout asked for, changed in place."""
        return network.to(memory_format=torch.channels_last) if self.channels_last else network

    def called(self, network: nn.Module) -> nn.Module:
        """The network as it is called, sharing its weights: compiled, under autocast, its result float32."""
        if self.precision == "float32" and not self.channels_last and not self.compile:
            return network
        called: nn.Module = torch.compile(network) if self.compile else network  # type: ignore[assignment]
        return with_traits(_Called(called, self), network)


class _Called(nn.Module):
    def __init__(self, network: nn.Module, compute: Compute) -> None:
        super().__init__()
        self.network, self.compute = network, compute

    def forward(self, x: Tensor, level: Tensor, context: Tensor | None = None) -> Tensor:
        if self.compute.channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        if self.compute.precision == "float32":
            return self.network(x, level, context)
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.network(x, level, context).float()
