"""vsmd.random: streams are pure functions of seed and labels; distinct arguments, distinct streams."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vsmd.random import first_weights, generator

LABEL = st.integers() | st.text(max_size=8)


def draw(seed: int, *labels: int | str, n: int = 4) -> list[float]:
    return torch.rand(n, generator=generator(seed, *labels), dtype=torch.float64).tolist()


@given(st.integers(), st.lists(LABEL, max_size=3))
def test_same_arguments_same_stream(seed: int, labels: list[int | str]) -> None:
    assert draw(seed, *labels) == draw(seed, *labels)


def test_stream_ignores_global_state_and_leaves_it_alone() -> None:
    torch.manual_seed(1)
    first = draw(0, "data")
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert draw(0, "data") == first
    assert torch.equal(torch.get_rng_state(), state)


def test_same_stream_in_another_process() -> None:
    """Python's own string hash is salted per process; the streams must not depend on it."""
    code = (
        "import torch; from vsmd.random import generator;"
        "print(torch.rand(4, generator=generator(3, 'train', 7), dtype=torch.float64).tolist())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == str(draw(3, "train", 7))


@given(st.tuples(st.integers(), st.lists(LABEL, max_size=2)), st.tuples(st.integers(), st.lists(LABEL, max_size=2)))
def test_different_arguments_different_stream(
    one: tuple[int, list[int | str]], other: tuple[int, list[int | str]]
) -> None:
    assert (one == other) == (draw(one[0], *one[1]) == draw(other[0], *other[1]))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0, "a", "b"), (0, "b", "a")),
        ((0, "a/b"), (0, "a", "b")),
        ((0, 1), (0, "1")),
        ((12,), (1, 2)),
        ((0,), (0, "")),
        ((0, "a", "b"), (0, "ab")),
    ],
)
def test_labels_are_told_apart(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    assert draw(*one) != draw(*other)


def test_neighbouring_seeds_and_labels_are_uncorrelated() -> None:
    """|r| of independent normal draws exceeds 5/√n with probability 6e-7; 190 pairs."""
    n = 20_000
    streams = [generator(seed, "step", step) for seed in range(4) for step in range(5)]
    draws = torch.stack([torch.randn(n, generator=g, dtype=torch.float64) for g in streams])
    r = torch.corrcoef(draws)
    assert all(abs(r[i, j]) < 5 / n**0.5 for i, j in itertools.combinations(range(len(streams)), 2))


def test_device() -> None:
    assert generator(0, device="cpu").device == torch.device("cpu")
    with pytest.raises(RuntimeError):
        generator(0, device="no-such-device")


def test_first_weights_leave_accelerators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's draws on a GPU do not start anew because a network was made."""
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    with first_weights(generator(0, "network")):
        torch.randn(3)
    assert seeded == []
