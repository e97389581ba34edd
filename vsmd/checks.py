"""Argument checks: one clear line that names the argument, its value and what is allowed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from vsmd.messages import line, told

if TYPE_CHECKING:
    import torch


def _number(value: object) -> float:
    """A real number as a float; NaN for what is none, or too large for one."""
    try:
        return float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.nan


def positive(name: str, value: object, most: float = math.inf) -> float:
    """Return `value` as a float; ValueError unless it is a finite number > 0, between 1/most and most."""
    if not 0 < _number(value) < math.inf:
        raise ValueError(f"{name}={told(value)}: must be a finite number > 0")
    return in_range(name, value, 1 / most, most)


def in_range(name: str, value: object, low: float, high: float) -> float:
    """Return `value` as a float, or raise ValueError unless low <= value <= high."""
    if not low <= (number := _number(value)) <= high:
        raise ValueError(f"{name}={told(value)}: must be a number between {low:g} and {high:g}")
    return number


def positive_int(name: str, value: object) -> int:
    """Return `value` as an int, or raise ValueError unless it is an integer >= 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name}={told(value)}: must be an integer >= 1")
    return int(value)


def non_negative_int(name: str, value: object) -> int:
    """Return `value` as an int, or raise ValueError unless it is an integer >= 0."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise ValueError(f"{name}={told(value)}: must be an integer >= 0")
    return int(value)


def flag(name: str, value: object) -> bool:
    """Return `value`, or raise ValueError unless it is True or False."""
    if type(value).__name__ not in ("bool", "bool_"):  # numpy's too
        raise ValueError(f"{name}={told(value)}: must be True or False")
    return bool(value)


def one_of(name: str, value: object, allowed: Iterable[str]) -> str:
    """Return `value`, or raise ValueError that lists what is allowed and suggests the nearest name."""
    names = list(allowed)
    if isinstance(value, str) and value in names:
        return value
    folded = {n.lower(): n for n in names}
    near = difflib.get_close_matches(str(value).lower(), list(folded), n=1, cutoff=0.5)
    hint = f" (did you mean {folded[near[0]]!r}?)" if near else ""
    raise ValueError(f"{name}={told(value)}: must be one of {some([*map(repr, names)], 16)}{hint}")


def some(names: Sequence[object], count: int = 5) -> str:
    """The first names, in 60 characters each, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(line(name, 60) for name in names[:count]) + more


def tensor(name: str, value: Any) -> torch.Tensor:
    """Return a tensor, without its graph, or the numbers of an array, pandas frame or series as one; else TypeError.

    Of arrays float32 stays, other floating numbers become float64, whole ones int64; a frame is float64 as a whole.
    """
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach()
    if hasattr(value, "to_numpy") and hasattr(value, "dtypes"):
        frame = hasattr(value, "columns")
        columns = zip(value.columns, value.dtypes) if frame else [(value.name, value.dtype)]
        for column, dtype in columns:
            if getattr(dtype, "kind", "O") not in "fiub":
                raise TypeError(f"{name}: column {told(column)} holds {dtype}; must hold numbers")
        whole = not frame and value.dtype.kind in "iub" and not value.isna().any()
        value = value.to_numpy("int64") if whole else value.to_numpy("float64", na_value=math.nan)
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name}={type(value).__name__}: must be a tensor, a numpy array or a pandas DataFrame")
    if value.dtype.kind not in "fiub":
        raise TypeError(f"{name}: array of {value.dtype}; must hold numbers")
    real = np.float32 if value.dtype.itemsize <= 4 else np.float64
    return torch.from_numpy(np.array(value, real if value.dtype.kind == "f" else np.int64))


def points(name: str, value: object, shape: tuple[int, ...]) -> torch.Tensor:
    """Return `value`, float32 or float64, or raise ValueError unless it holds finite points (n, *shape), n >= 1."""
    import numpy as np
    import torch

    if isinstance(value, np.ndarray) or hasattr(value, "to_numpy"):
        value = tensor(name, value)
    if not isinstance(value, torch.Tensor) or tuple(value.shape[1:]) != shape or not len(value):
        got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise ValueError(f"{name}={got}: must be a tensor of shape (n, {', '.join(map(str, shape))}), n >= 1")
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name}: must be finite, has NaN or inf")
    value = value.detach()
    return value if value.dtype == torch.float64 else value.float()


def device(name: str, value: object) -> torch.device:
    """Return `value` as a torch device, or raise ValueError unless this machine has it."""
    import torch

    try:
        named = torch.device(value)  # type: ignore[call-overload]
        torch.empty(0, device=named)
    except (RuntimeError, AssertionError, TypeError):
        have = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ValueError(f"{name}={told(value)}: not on this machine, which has {', '.join(have)}") from None
    return named
