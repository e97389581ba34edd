"""Random streams that are pure functions of (seed, labels): nothing to save, so runs resume bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
    """While entered, layers draw their first weights as from a fresh `stream`; torch's own stream is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream.initial_seed())
        yield
