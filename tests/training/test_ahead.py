"""vsmd.training.ahead: values made in a thread are those made in turn."""

from __future__ import annotations

import threading

import pytest
import torch

from vsmd.training.ahead import Ahead, sent


def test_nothing_is_sent_on_a_cpu() -> None:
    value = torch.arange(3.0)
    assert sent(value, torch.device("cpu")) is value


def test_values_and_order() -> None:
    made: list[int] = []

    def make(step: int) -> int:
        made.append(step)
        assert threading.current_thread() is not threading.main_thread()
        return step * step

    ahead = Ahead(make, depth=2)
    assert [ahead(step) for step in range(5, 12)] == [step * step for step in range(5, 12)]
    ahead.close()
    assert made[:7] == list(range(5, 12))  # each once, from the step that a run goes on at
    assert len(made) <= 9


def test_errors_are_raised_where_the_value_is_asked_for() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise ValueError("two")
        return step

    ahead = Ahead(make)
    assert [ahead(0), ahead(1)] == [0, 1]
    with pytest.raises(ValueError, match=r"^two$"):
        ahead(2)
    ahead.close()
