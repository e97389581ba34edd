"""Batches made ahead of their step, in a thread, so that an accelerator never waits for the CPU."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def sent(value: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on `device`; on its way to an accelerator nobody waits for what that is still computing."""
    return value if device.type == "cpu" else value.pin_memory().to(device, non_blocking=True)


class Ahead(Generic[T]):
    """make(step), for a pure function of the step: made in a thread, `depth` steps before it is asked for in turn."""

    def __init__(self, make: Callable[[int], T], depth: int = 2) -> None:
        self.make, self.depth = make, depth
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vsmd-batches")
        self._waiting: dict[int, Future[T]] = {}

    def __call__(self, step: int) -> T:
        """The value for `step`; what `make` raised is raised here."""
        for later in range(step, step + self.depth + 1):
            if later not in self._waiting:
                self._waiting[later] = self._thread.submit(self.make, later)
        return self._waiting.pop(step).result()

    def close(self) -> None:
        """Drop what was made in vain."""
        self._thread.shutdown(cancel_futures=True)
