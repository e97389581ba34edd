"""vsmd.memory: freed memory goes back, and everything long asks for it."""

from __future__ import annotations

import ctypes
import time

import pytest
import tinyruns
import torch

import vsmd
from vsmd import memory

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc only: other C libraries have no malloc_trim"
)


def test_freed_memory_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SECONDS", 0.0)
    full, kept = tinyruns.free_below_a_kept_block()
    assert kept > full - 50  # the C library keeps what is freed
    memory.give_back()
    assert tinyruns.resident() < full - 150


def test_at_most_once_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_last", time.monotonic())
    full, _ = tinyruns.free_below_a_kept_block()
    memory.give_back()
    assert tinyruns.resident() > full - 50


def test_training_and_sampling_ask_for_it_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []
    monkeypatch.setattr(memory, "give_back", lambda: asked.append(None))
    process = vsmd.forward_process("CLD", (2,))
    model = vsmd.fit(process, torch.randn(64, 2), steps=3, batch_size=8)
    assert len(asked) == 3
    model.sample(4, steps=5)
    assert len(asked) == 8
