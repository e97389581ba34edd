"""Training: one loop for every experiment, with the adaptation of A inside and bit-exact resume."""

from vsmd.training.loop import fit

__all__ = ["fit"]
