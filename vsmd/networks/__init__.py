"""Score networks: net(z, log_snr, context) -> tensor like z.

z (n, *shape) is the standardised statistic of the noisy state, log_snr (n or 1, *shape) its log signal-to-noise
amplitude per direction. The same network therefore serves all six methods, with or without velocity.
"""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from vsmd import checks

NETWORKS = {
    "conditional": "vsmd.networks.conditional:ConditionalMLP",
    "mixer": "vsmd.networks.mixer:Mixer",
    "mlp": "vsmd.networks.mlp:MLP",
    "unet": "vsmd.networks.unet:UNet",
}


def describe(network: nn.Module) -> dict[str, Any]:
    """Name and JSON settings of a network, from which `build` makes it again; of a user's own, its class and size."""
    if hasattr(network, "settings") and hasattr(network, "name"):
        return {"name": network.name, "settings": network.settings}
    return {"class": type(network).__name__, "parameters": sum(p.numel() for p in network.parameters())}


def build(name: str, **settings: Any) -> nn.Module:
    """Build a network by name from its JSON settings, as written into model files (ValueError if unknown)."""
    module, cls = NETWORKS[checks.one_of("network", name, NETWORKS)].split(":")
    return getattr(importlib.import_module(module), cls)(**settings)
