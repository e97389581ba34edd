"""Score networks, of two kinds.

In directions: net(z, log_snr, context) -> tensor like z. z (n, *shape) is the standardised statistic of the noisy
state, log_snr (n or 1, *shape) its log signal-to-noise amplitude per direction. The same network therefore serves all
methods, with or without velocity.

A backbone of images (class attribute `backbone = True`): net(image, level, context) -> image, in data coordinates, with
one level of white noise, level (n or 1,); `vsmd.scores.preconditioned` turns and scales for it. One of another library
is put in its place by `Backbone`.

A network of your own is saved and loaded if it has `name`, `settings` (its keyword arguments as JSON) and a line in
`NETWORKS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from vsmd import checks

NETWORKS: dict[str, str | Callable[..., nn.Module]] = {  # a class, or where it is found when it is first used
    "conditional": "vsmd.networks.conditional:ConditionalMLP",
    "mlp": "vsmd.networks.mlp:MLP",
    "unet": "vsmd.networks.unet:UNet",
}
TRAITS = ("backbone", "levels")  # class attributes by which `vsmd.scores` knows how to call a network


class Backbone(nn.Module):
    """A backbone made of any module: `call(module, image, level, context)` is its answer, (n, C, H, W).

        unet = diffusers.UNet2DModel(sample_size=32, in_channels=3, out_channels=3)
        network = Backbone(unet, lambda unet, image, level, context: unet(image, 100 * level)[0])

    module: holds the weights. call: a function of the module, the noisy image (n, C, H, W), the log signal-to-noise
    amplitude (n or 1,), about -7 to 7, and the context or None.
    """

    backbone = True

    def __init__(self, module: nn.Module, call: Callable[[nn.Module, Tensor, Tensor, Tensor | None], Tensor]) -> None:
        super().__init__()
        self.module, self.call = module, call

    def forward(self, image: Tensor, level: Tensor, context: Tensor | None = None) -> Tensor:
        return self.call(self.module, image, level, context)


def with_traits(wrapper: nn.Module, network: nn.Module) -> nn.Module:
    """`wrapper` marked to be called as the network inside it is."""
    for trait in TRAITS:
        setattr(wrapper, trait, bool(getattr(network, trait, False)))
    return wrapper


def describe(network: nn.Module) -> dict[str, Any]:
    """Name and JSON settings of a network, from which `build` makes it again; of a user's own, its class and size."""
    if hasattr(network, "settings") and hasattr(network, "name"):
        return {"name": network.name, "settings": network.settings}
    return {"class": type(network).__name__, "parameters": sum(p.numel() for p in network.parameters())}


def build(name: str, **settings: Any) -> nn.Module:
    """Build a network by name from its JSON settings, as written into model files (ValueError if unknown)."""
    entry = NETWORKS[checks.one_of("network", name, NETWORKS)]
    if isinstance(entry, str):
        module, attribute = entry.split(":")
        entry = getattr(importlib.import_module(module), attribute)
    return entry(**settings)
