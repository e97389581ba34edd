"""What the measures take: tensors or numpy arrays of finite real numbers, in float64 from here on."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

Array: TypeAlias = Tensor | np.ndarray


def real(name: str, value: Array, finite: bool = True) -> Tensor:
    """`value` as a detached float64 tensor on its device; finite and not empty."""
    if not isinstance(value, Tensor | np.ndarray):
        raise TypeError(f"{name}: must be a tensor or array of real numbers, not {type(value).__name__}")
    if isinstance(value, np.ndarray):
        is_real = value.dtype.kind in "iuf"
    else:
        is_real = value.dtype != torch.bool and not value.is_complex()
    if not is_real:
        raise TypeError(f"{name}: must hold real numbers, not {value.dtype}")
    tensor = value.detach().double() if isinstance(value, Tensor) else torch.tensor(value.astype(np.float64))
    if tensor.numel() == 0:
        raise ValueError(f"{name}: is empty (shape {tuple(tensor.shape)}); at least one value is needed")
    if finite and not (good := tensor.isfinite()).all():
        bad = int((~good).sum())
        raise ValueError(f"{name}: {bad} of {tensor.numel()} values are NaN or infinite; must be finite")
    return tensor


def rows(name: str, value: Array, finite: bool = True) -> Tensor:
    """A set of at least two points (n, *shape) as (n, d)."""
    tensor = real(name, value, finite)
    if tensor.ndim < 2 or len(tensor) < 2:
        raise ValueError(f"{name}: shape {tuple(tensor.shape)}; must be (n, *shape) with n >= 2")
    return tensor.flatten(1)


def pair(names: tuple[str, str], x: Array, y: Array) -> tuple[Tensor, Tensor]:
    """Two sets of points of one shape, as (n, d) and (m, d) on the device of the first."""
    first, second = rows(names[0], x), rows(names[1], y)
    if x.shape[1:] != y.shape[1:]:
        said = f"must be {tuple(x.shape[1:])} as in {names[0]}"
        raise ValueError(f"{names[1]}: points of shape {tuple(y.shape[1:])}; {said}")
    return first, second.to(first.device)
