"""Arguments for calls: ordinary ones, ones at the edge of what is allowed, and odd ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from torture.calls import Call
from vsmd.bases import BASES
from vsmd.methods import METHODS
from vsmd.priors import PRIORS
from vsmd.samplers import SOLVERS
from vsmd.schedules import BetaSchedule
from vsmd.units import UNITS

ODD: list[Any] = [
    None, True, False, -1, 0, 1, 3, 10**30, -(10**30), 2.5, -0.0, 1e-300, 1e300, math.nan, math.inf, -math.inf, 1j,
    "", "x",
    "cld", "é\n", b"x", (), (0,), (-1,), (2.5,), ("a",), [], [1, 2], {}, {"x": 1}, object, np.float32(1), np.int64(2),
    np.array(["a"]), np.array([]), np.array([1 + 1j]), torch.tensor(math.nan), torch.zeros(0), torch.ones(3),
    torch.ones(2, 2, dtype=torch.complex64), torch.ones(2, dtype=torch.bool), torch.full((2,), math.inf),
]  # fmt: skip
SHAPES = [(1,), (2,), (3,), (2, 2), (1, 4, 4), (3, 2, 2)]
odd = st.sampled_from(ODD)
method, prior, solver = (st.sampled_from(sorted(names)) for names in (METHODS, PRIORS, SOLVERS))
basis = st.sampled_from([*(name for name in BASES if name != "orthogonal")])
units = st.sampled_from([None, *UNITS])
scale = st.floats(-6, 6).map(lambda e: 10.0**e)
beta = st.one_of(st.floats(0.5, 20), st.floats(-3, 3).map(lambda e: 10.0**e)) | st.builds(
    lambda low, more, power: BetaSchedule(low, low + more, power),
    st.floats(0.01, 5),
    st.floats(0, 20),
    st.floats(0.1, 3),
)
times = st.floats(1e-9, 1) | st.floats(-9, 0).map(lambda e: 10.0**e)
count = st.integers(1, 40)
rate = st.floats(-4, 0).map(lambda e: 10.0**e)
score = st.sampled_from([None, "zero", "adaptive", "steered", "mixture"]) | st.floats(-3, 0.24)


def told(value: Any) -> str:
    """A value as words that make it again."""
    if isinstance(value, torch.Tensor):
        whole = value.numel() <= 12
        text = (
            f"torch.tensor({value.tolist()})"
            if whole
            else f"tensor{tuple(value.shape)} std {float(value.double().std()):.3g}"
        )
        return text if value.dtype == torch.float32 else f"{text}.to({value.dtype})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {told(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(told, value)) + ("," if len(value) == 1 else "") + ")"
    return repr(value)[:300]


def words(name: str, arguments: dict[str, Any]) -> str:
    """A call in words."""
    return f"{name}({', '.join(f'{k}={told(v)}' for k, v in arguments.items())})"


@st.composite
def chosen(draw: st.DrawFn, fields: dict[str, Any], needed: tuple[str, ...] = (), wrong: int = 3) -> dict[str, Any]:
    """Some of the fields, those needed always; about one set in `wrong` has an odd value or two."""
    names = [name for name in fields if name in needed or draw(st.booleans())]
    values = {name: draw(fields[name]) for name in names}
    if names and draw(st.integers(1, wrong)) == 1:
        for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)):
            values[name] = draw(odd)
    return values


def called(
    name: str,
    function: Callable[..., Any],
    fields: dict[str, Any],
    needed: tuple[str, ...] = (),
    wrong: int = 3,
    **more: Any,
) -> st.SearchStrategy[Call]:
    """Calls of a function with keyword arguments."""

    def call(arguments: dict[str, Any]) -> Call:
        return Call(words(name, arguments), lambda: function(**arguments), **more)

    return chosen(fields, needed, wrong).map(call)


@st.composite
def points(draw: st.DrawFn, shape: tuple[int, ...], n: int | None = None) -> torch.Tensor:
    """Points (n, *shape) of some scale and mean; now and then constant in a coordinate, few, or not finite."""
    n = draw(st.sampled_from([2, 5, 40, 200])) if n is None else n
    stream = torch.Generator().manual_seed(draw(st.integers(0, 5)))
    x = torch.randn(n, *shape, generator=stream) * draw(st.sampled_from([1.0, 1.0, 1.0, 1e-6, 1e-2, 30.0, 1e4, 1e8]))
    kind = draw(st.integers(0, 30))
    if kind == 0:
        x[..., 0] = 3.0
    elif kind == 1:
        x[-1] = draw(st.sampled_from([math.nan, math.inf]))
    elif kind == 2:
        x = (x.double() + 1e6).clone()
    elif kind == 3:
        x = x[:1]
    elif kind == 4:
        x = x.exp() if float(x.std()) < 50 else x
    elif kind == 5:
        x = x[:1].repeat(len(x), *[1] * len(shape))
    return x
