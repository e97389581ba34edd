"""Variational Schrödinger Momentum Diffusion (VSMD) and its family, reference implementation.

>>> process = vsmd.forward_process("VSULD", shape=(2,), beta=5.0, damping=0.7)
>>> model = vsmd.fit(process, data, steps=6_000, seed=0)
>>> x = model.sample(10_000, seed=0)

Importing the package loads nothing but this file; names and submodules load when first used.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vsmd.adaptation import Adaptation
    from vsmd.family import forward_process
    from vsmd.methods import METHODS
    from vsmd.model import Model, load
    from vsmd.processes import ForwardProcess
    from vsmd.quality import check
    from vsmd.schedules import BetaSchedule
    from vsmd.training import fit

__version__ = "0.1.0"
__all__ = [
    "METHODS", "Adaptation", "BetaSchedule", "ForwardProcess", "Model", "check", "fit", "forward_process", "load",
]  # fmt: skip

_HOME = {
    "METHODS": "methods",
    "Adaptation": "adaptation",
    "BetaSchedule": "schedules",
    "ForwardProcess": "processes",
    "Model": "model",
    "check": "quality",
    "fit": "training",
    "forward_process": "family",
    "load": "model",
}
_ROOMS = {module.name for module in pkgutil.iter_modules(__path__)}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"vsmd.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if name in _ROOMS:
        return importlib.import_module(f"vsmd.{name}")
    raise AttributeError(f"module 'vsmd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_ROOMS})
