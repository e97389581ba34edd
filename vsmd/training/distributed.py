"""Processes that train together: PyTorch's own DDP as `torchrun` starts it, gloo on CPUs and NCCL on GPUs.

All processes of the group call `fit` with the same arguments and get the same model. Each holds the same weights and
computes its own rows of the same global batch, so that their number changes a run by rounding only; a run may be
resumed by another number of them. Callbacks run on all, at the same steps.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vsmd import checks
from vsmd.networks import with_traits


@dataclass(frozen=True)
class World:
    """This process among `size` that train together. What they tell each other here goes over CPUs, in `group`."""

    rank: int = 0
    size: int = 1
    group: Any = None

    @classmethod
    def current(cls) -> World:
        """The world of the process group that is up, or of one process alone. Called by all processes together."""
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return cls()
        gloo = dist.get_backend() == "gloo"
        group = dist.group.WORLD if gloo else dist.new_group(backend="gloo", timeout=patience())
        return cls(dist.get_rank(), dist.get_world_size(), group)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def rows(self, n: int) -> slice:
        """This process's rows of a batch of n, a multiple of `size`."""
        share = n // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def total(self, value: Tensor) -> Tensor:
        """The sum of a CPU tensor over all processes."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value, group=self.group)
        return value

    def mean(self, value: Tensor) -> float:
        """The mean of a number over all processes."""
        return float(self.total(value.detach().cpu()) / self.size) if self.size > 1 else float(value)

    def largest(self, value: int) -> int:
        """The largest of the processes' integers."""
        if self.size == 1:
            return value
        largest = torch.tensor([value])
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=self.group)
        return int(largest)

    def spread(self, value: Tensor) -> Tensor:
        """Least and largest (2, …) of a CPU tensor over all processes, elementwise."""
        both = torch.stack([-value, value])
        if self.size > 1:
            dist.all_reduce(both, op=dist.ReduceOp.MAX, group=self.group)
        return torch.stack([-both[0], both[1]])

    def check_same(self, settings: Mapping[str, Any], mean: Tensor, std: Tensor) -> None:
        """ValueError, in all processes, that names what they have been given differently: plain settings, the data."""
        texts = [json.dumps(value, default=str).encode() for value in settings.values()]
        digests = [int.from_bytes(hashlib.blake2b(text, digest_size=7).digest()) for text in texts]
        low, high = self.spread(torch.tensor(digests))
        differing = [name for name, same in zip(settings, (low == high).tolist()) if not same]
        if not differing:  # shapes are the same, then
            low, high = self.spread(torch.stack([mean, std]).flatten(1))
            if bool((high - low > 1e-6 * (high[1] + high.abs())).any()):
                worst = int((high - low).amax(0).argmax())
                said = [f"{a:.6g} to {b:.6g}" for a, b in zip(low[:, worst].tolist(), high[:, worst].tolist())]
                differing = [f"data (mean {said[0]}, std {said[1]})"]
        if differing:
            names = ", ".join(differing)
            raise ValueError(f"{names}: differ between the {self.size} processes; all must be given the same")

    def shared(self, value: Tensor) -> Tensor:
        """The first process's CPU tensor."""
        if self.size > 1:
            value = value.clone()
            dist.broadcast(value, src=0, group=self.group)
        return value

    def wait(self) -> None:
        """Return once all processes are here."""
        if self.size > 1:
            dist.barrier(group=self.group)

    def wrapped(self, network: nn.Module) -> nn.Module:
        """The network with its gradients averaged over all processes; the first one's weights are everybody's."""
        if self.size == 1:
            return network
        device = next(network.parameters()).device
        ids = None if device.type == "cpu" else [device]
        with warnings.catch_warnings():  # newer releases of PyTorch rename the argument, older ones lack the new name
            warnings.simplefilter("ignore", FutureWarning)
            wrapped = DistributedDataParallel(  # buffers are constants here: not worth a message a step
                network, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True
            )
        return with_traits(wrapped, network)


def unsynced(network: nn.Module) -> AbstractContextManager[object]:
    """While entered, gradients of a network from `World.wrapped` stay with the process that computed them."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


def _number(name: str, default: str = "") -> int:
    """An integer in the environment, where torchrun has put most of them."""
    text = os.environ.get(name, default)
    if not text.isdecimal():
        raise ValueError(f"{name}={text!r}: must be an integer, as torchrun sets it")
    return int(text)


def patience() -> timedelta:
    """How long a process waits for another that does not answer: VSMD_TIMEOUT seconds, by default ten minutes."""
    return timedelta(seconds=checks.positive_int("VSMD_TIMEOUT", _number("VSMD_TIMEOUT", "600")))


@contextmanager
def launched(device: str) -> Iterator[torch.device]:
    """This process's device, its process group up meanwhile: one of `torchrun`'s, or alone where it was not used.

    device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N"; under torchrun every process takes the GPU of
    its own number. Raises ValueError for a device that is not on this machine, more processes than it has GPUs, or a
    WORLD_SIZE, RANK or LOCAL_RANK that is no number; TimeoutError where another process does not answer for `patience`.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    together = "WORLD_SIZE" in os.environ and checks.positive_int("WORLD_SIZE", _number("WORLD_SIZE")) > 1
    local = _number("LOCAL_RANK") if together else 0
    if together and torch.device(device).type == "cuda":
        have = torch.cuda.device_count()
        if local >= have:
            raise ValueError(f"nproc_per_node={local + 1} or more: must be at most the GPUs of this machine, {have}")
        device = f"cuda:{local}"
    ours = checks.device("device", device)
    if ours.type == "cuda":
        ours = torch.device("cuda", ours.index or 0)
        torch.cuda.set_device(ours)
    if together:
        _number("RANK")
    try:
        if together:
            dist.init_process_group("nccl" if ours.type == "cuda" else "gloo", timeout=patience())
        yield ours
    except RuntimeError as error:
        if together and re.search("(?i)timed? ?out", str(error)):
            seconds = _number("VSMD_TIMEOUT", "600")
            raise TimeoutError(f"another process has not answered for {seconds} s (VSMD_TIMEOUT)") from None
        raise
    finally:
        if together and dist.is_initialized():
            dist.destroy_process_group()
