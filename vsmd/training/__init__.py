"""Training: one loop for every experiment, on one device or many, with A's adaptation inside and bit-exact resume."""

from vsmd.training.compute import Compute
from vsmd.training.loop import fit

__all__ = ["Compute", "fit"]
