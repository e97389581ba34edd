"""vsmd.schedules: beta(t), its clock, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from vsmd.schedules import BetaSchedule

RATE = st.floats(0.01, 30)


def at(t: float) -> torch.Tensor:
    return torch.tensor([t], dtype=torch.float64)


@given(low=RATE, extra=st.floats(0, 30), power=st.floats(0.3, 4), t=st.floats(0, 1))
def test_clock_is_half_the_integral_of_beta(low: float, extra: float, power: float, t: float) -> None:
    schedule = BetaSchedule(low, low + extra, power)
    want = quad(lambda u: low + extra * u**power, 0, t, epsabs=1e-13, epsrel=1e-12)[0] / 2
    assert float(schedule.clock(at(t))) == pytest.approx(want, rel=1e-7, abs=1e-9)
    assert float(schedule.beta(at(t))) == pytest.approx(low + extra * t**power, rel=1e-12)


def test_published_schedules() -> None:
    """Constant; SGM's VP schedule .1 + (beta_max - .1) t; VSDM-10's .1 + 9.9 t^1.7. Clock = half the area."""
    one = at(1.0)
    assert float(BetaSchedule.of(5.0).clock(one)) == 2.5
    assert float(BetaSchedule(0.1, 20.0).clock(one)) == pytest.approx((0.1 + 20.0) / 4)
    assert float(BetaSchedule(0.1, 10.0, 1.7).clock(one)) == pytest.approx((0.1 + 9.9 / 2.7) / 2)
    assert float(BetaSchedule(0.1, 10.0, 1.7).beta(at(0.5))) == pytest.approx(0.1 + 9.9 * 0.5**1.7)


def test_constant_schedule() -> None:
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    schedule = BetaSchedule.of(7)
    assert torch.equal(schedule.beta(t), torch.full_like(t, 7))
    torch.testing.assert_close(schedule.clock(t), 3.5 * t, rtol=1e-15, atol=0)


def test_of_keeps_a_schedule() -> None:
    schedule = BetaSchedule(0.1, 10.0)
    assert BetaSchedule.of(schedule) is schedule


def test_clock_is_float64_whatever_comes_in() -> None:
    assert BetaSchedule(1.0, 3.0).clock(torch.tensor([0.5])).dtype == torch.float64
    assert BetaSchedule(1.0, 3.0).beta(torch.tensor([0.5])).dtype == torch.float32


@pytest.mark.parametrize("value", [0, -5.0, math.nan, math.inf, True, "5", None])
@pytest.mark.parametrize("name", ["b_min", "b_max", "power"])
def test_bad_numbers(name: str, value: Any) -> None:
    arguments: dict[str, Any] = {"b_min": 1.0, "b_max": 2.0, "power": 1.0} | {name: value}
    with pytest.raises(ValueError, match=rf"^{name}=.*must be a finite number > 0$") as error:
        BetaSchedule(**arguments)
    assert repr(value) in str(error.value)


def test_falling_schedule() -> None:
    with pytest.raises(ValueError, match=r"^b_max=1.0: must be at least b_min=2.0$"):
        BetaSchedule(2.0, 1.0)


@pytest.mark.parametrize("value", [0.0, -1, math.nan, False, "10"])
def test_bad_beta(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^beta=.*must be a finite number > 0$"):
        BetaSchedule.of(value)
