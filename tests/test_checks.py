"""vsmd.checks: what passes, what is refused, and that the one line of the error names everything."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vsmd import checks

METHODS = ("SGM", "VSDM", "CLD", "ULD", "VSCLD", "VSULD")
NOT_NUMBERS = (None, "1", True, False, math.nan, [1.0], 1j)


def one_line(call: Callable[[], object], name: str, value: object) -> str:
    """The message of the ValueError that `call` raises; it must be one line that names argument and value."""
    with pytest.raises(ValueError, match="must be") as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{name}={value!r}: must be")
    return message


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False))
def test_positive_returns_the_float(value: float) -> None:
    assert checks.positive("beta", value) == value


@pytest.mark.parametrize("value", [3, np.float32(3), np.int64(3), Fraction(6, 2)])
def test_positive_takes_any_real_type(value: object) -> None:
    result = checks.positive("beta", value)
    assert type(result) is float
    assert result == 3.0


@pytest.mark.parametrize("value", [0, 0.0, -0.0, -1, -1e-300, math.inf, -math.inf, *NOT_NUMBERS])
def test_positive_refuses(value: object) -> None:
    assert "finite number > 0" in one_line(lambda: checks.positive("beta", value), "beta", value)


@given(st.floats(-2, 3))
def test_in_range_is_closed(value: float) -> None:
    assert checks.in_range("t", value, -2, 3) == value


@pytest.mark.parametrize("value", [math.nextafter(0, -1), math.nextafter(1, 2), math.inf, *NOT_NUMBERS])
def test_in_range_refuses(value: object) -> None:
    assert "between 0 and 1" in one_line(lambda: checks.in_range("t", value, 0, 1), "t", value)


@given(st.integers(min_value=1))
def test_positive_int_returns_the_int(value: int) -> None:
    assert checks.positive_int("steps", value) == value


def test_positive_int_takes_numpy_integers() -> None:
    assert type(checks.positive_int("steps", np.int32(7))) is int


@pytest.mark.parametrize("value", [0, -1, 1.0, 2.5, math.inf, *NOT_NUMBERS])
def test_positive_int_refuses(value: object) -> None:
    assert "integer >= 1" in one_line(lambda: checks.positive_int("steps", value), "steps", value)


def test_non_negative_int_takes_zero() -> None:
    assert checks.non_negative_int("factors", 0) == 0
    assert type(checks.non_negative_int("factors", np.int32(7))) is int


@pytest.mark.parametrize("value", [-1, 1.0, 2.5, math.inf, *NOT_NUMBERS])
def test_non_negative_int_refuses(value: object) -> None:
    assert "integer >= 0" in one_line(lambda: checks.non_negative_int("factors", value), "factors", value)


@pytest.mark.parametrize("value", METHODS)
def test_one_of_returns_the_name(value: str) -> None:
    assert checks.one_of("method", value, iter(METHODS)) == value


@pytest.mark.parametrize(
    ("value", "nearest"),
    [("vsuld", "VSULD"), ("VSUDL", "VSULD"), ("VS-CLD", "VSCLD"), ("cld ", "CLD"), ("VDSM", "VSDM")],
)
def test_one_of_suggests_the_nearest(value: str, nearest: str) -> None:
    message = one_line(lambda: checks.one_of("method", value, METHODS), "method", value)
    assert message.endswith(f"(did you mean {nearest!r}?)")
    assert all(repr(name) in message for name in METHODS)


@pytest.mark.parametrize("value", ["transformer", "", 5, None, [0]])
def test_one_of_suggests_nothing_when_nothing_is_near(value: object) -> None:
    assert "did you mean" not in one_line(lambda: checks.one_of("method", value, METHODS), "method", value)


class Matrix:
    def __repr__(self) -> str:
        return "matrix([[1, 2],\n        [3, 4]])" * 40


@pytest.mark.parametrize("value", [Matrix(), "a" * 10**5, [0.5] * 10**4, torch.eye(3, dtype=torch.complex64)])
def test_any_value_is_told_on_one_short_line(value: Any) -> None:
    for call in (
        lambda: checks.positive("x", value), lambda: checks.in_range("x", value, 0, 1),
        lambda: checks.positive_int("x", value), lambda: checks.non_negative_int("x", value),
        lambda: checks.one_of("x", value, METHODS), lambda: checks.device("x", value),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"^x=[^\n]{,80}: [^\n]{,120}$"):
            call()


@pytest.mark.parametrize("call", [checks.positive, lambda name, value: checks.in_range(name, value, 0, 1)])
def test_integers_beyond_floats(call: Callable[[str, int], float]) -> None:
    with pytest.raises(ValueError, match=r"^beta=1000.* …: must be a"):
        call("beta", 10**400)


def test_positive_within_bounds() -> None:
    assert (checks.positive("gamma", 1e-3, 1e3), checks.positive("gamma", 1e3, 1e3)) == (1e-3, 1e3)
    with pytest.raises(ValueError, match=r"^gamma=1e\+300: must be a number between 0.001 and 1000$"):
        checks.positive("gamma", 1e300, 1e3)


def test_names_are_cut_and_counted() -> None:
    """Column names are a stranger's text, and tables have many."""
    assert checks.some(["a\nb", *"cdefg"]) == "a b, c, d, e, f and 1 more"
    assert len(checks.some(["[" * 10**5] * 9)) < 330
    with pytest.raises(ValueError, match=r"^drop='z': must be one of 'n0', .*, 'n15' and 984 more$") as error:
        checks.one_of("drop", "z", [f"n{i}" for i in range(1000)])
    assert len(str(error.value)) < 220
