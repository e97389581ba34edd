"""Random streams that are pure functions of (seed, labels): nothing to save, so runs resume bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor


def generator(seed: int, *labels: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh `torch.Generator` for the stream named by `seed` and `labels`.

    Two calls with equal arguments give the same stream; others give unrelated ones (the generator's seed is
    a BLAKE2 hash of all arguments; torch's CPU generator keeps 32 bits of it). Seeds are any integers.
    """
    text = repr((int(seed), *(part if isinstance(part, str) else int(part) for part in labels)))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest, "little") >> 1)


@contextmanager
def first_weights(stream: torch.Generator) -> Iterator[None]:
    """While entered, layers made on the CPU draw their weights as from a fresh `stream`; torch's own are left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream.initial_seed())  # `torch.manual_seed` would seed accelerators, too
        yield


class Noise(Protocol):
    """Where solvers take their noise from."""

    def __call__(self, like: Tensor) -> Tensor:
        """Standard normals of the shape, dtype and device of `like`."""


class BatchNoise:
    """One stream for a whole batch. Drawn on the CPU, so that every device sees the same numbers."""

    def __init__(self, stream: torch.Generator) -> None:
        self.stream = stream

    def __call__(self, like: Tensor) -> Tensor:
        """Standard normals (n, …) of the stream."""
        return torch.randn(like.shape, generator=self.stream, dtype=like.dtype).to(like.device)


class RowNoise:
    """A stream a row: what a row gets does not depend on the others, or on how many there are."""

    def __init__(self, streams: Sequence[torch.Generator]) -> None:
        self.streams = streams

    def __call__(self, like: Tensor) -> Tensor:
        """Standard normals (n, …), row i of stream i; ValueError for another number of rows than streams."""
        if len(like) != len(self.streams):
            raise ValueError(f"noise: {len(self.streams)} streams for {len(like)} rows; must be as many")
        rows = [torch.randn(like.shape[1:], generator=stream, dtype=like.dtype) for stream in self.streams]
        return torch.stack(rows).to(like.device)
