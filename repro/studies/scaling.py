"""Cost against dimension: kernel, training step, update of A and memory in each basis, with fitted exponents.

Rows of `scaling`: what, basis, d, seconds, bytes (the median of some calls on one thread). Rows of `scaling_fits`: the
exponents of d, float64 words a direction, and shares of a training.
"""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import vsmd
import vsmd.images
from repro.grid.runs import Result
from repro.studies.bench_images import images_trainer
from repro.studies.sets.toys import toy
from repro.studies.timing import paired, trainer_of
from vsmd import adaptation as adapt
from vsmd import checks, random
from vsmd.adaptation import Adaptation
from vsmd.bases import Basis, Coordinates, Cosine, Principal, cosines
from vsmd.networks.mlp import MLP
from vsmd.processes import ForwardProcess
from vsmd.scores import Score
from vsmd.training.adapting import backward_moments
from vsmd.training.pairs import loss, pairs_at

DIMS = {  # by basis
    "coordinates": [2, 10, 100, 1_000, 10_000, 100_000, 1_000_000], "principal": [2, 16, 64, 256, 1_024, 4_096],
    "cosine": [3 * side**2 for side in (8, 16, 32, 64, 128, 256)],
}  # fmt: skip
ROWS = 4  # points of a training step, paths and steps of a backward simulation
FITTED = 1_000  # exponents are of the dimensions from here up: below, what a call costs is no matter of d
WORDS = 400  # float64 numbers a direction that all calls hold together, at most

Row = dict[str, Any]


class Gain(nn.Module):
    """A network of one number, g z: what is left of a step is ours."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, z: Tensor, level: Tensor, context: Tensor | None = None) -> Tensor:
        return self.gain * z


def process_at(basis: str, d: int) -> ForwardProcess:
    """VSULD of d directions that knows its data's moments, drawn; axes are those of a cosine transform.

    Raises ValueError for a basis that is none of `DIMS`, for d that makes no picture (3, s, s), and, before it takes
    any memory, for a d whose step would not fit into what is free.
    """
    checks.one_of("basis", basis, DIMS)
    side = math.isqrt(checks.positive_int("d", d) // 3)
    if basis == "cosine" and 3 * side**2 != d:
        raise ValueError(f"d={d}: must be 3 s^2 for the cosine basis")
    need = 8 * (WORDS * d + (3 * d**2 if basis == "principal" else 0))
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if need > free:
        raise ValueError(f"d={d}: needs about {need / 1e9:.3g} GB of memory, {free / 1e9:.3g} GB are free")
    shape = (3, side, side) if basis == "cosine" else (d,)
    of: Basis = Coordinates(shape)
    if basis == "cosine":
        of = Cosine(shape, {"channels": cosines(3).contiguous()})
    elif basis == "principal":
        of = Principal(shape, {"matrix": cosines(d).contiguous()})
    var = torch.rand(shape, generator=random.generator(0, "scaling", d), dtype=torch.float64) + 0.5
    return vsmd.forward_process("VSULD", shape, beta=5.0).with_moments(torch.zeros_like(var), var, of)


def held(process: ForwardProcess, time_: float = 0.5) -> int:
    """Bytes of a process and its kernel at one time: rates, moments, axes, mean map and noise."""
    kernel = process.kernel(torch.tensor([time_]))
    tensors = [
        *process.constant,
        *process.known(),
        *process.basis.tensors.values(),
        *(e for m in kernel for row in m for e in row),
    ]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def calls(process: ForwardProcess) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is timed, by name."""
    network, stream = Gain(), random.generator(0, "scaling calls")
    x = torch.randn(ROWS, *process.shape, generator=stream)
    times = torch.rand(ROWS, generator=stream, dtype=torch.float64) * 0.9 + 0.05
    settings = Adaptation(paths=ROWS, nodes=ROWS)
    least = adapt.least_stiffness(process, settings)

    def step() -> None:
        network.zero_grad()
        loss(network, process.basis, pairs_at(process, x, times, stream)).backward()

    def update() -> None:
        moments = backward_moments(Score(process, network), settings, 0, 0)
        adapt.update(process, moments, settings, 0, least)

    yield "kernel", lambda: dataclasses.replace(process).kernel(times[:1])  # with what it computes once for an A
    yield "training step", step
    yield "A update", update
    if process.basis.name != "coordinates":
        yield "turn", lambda: process.basis.back(process.basis.into(x))


def seconds(call: Callable[[], object], rounds: int) -> float:
    """Median of the processor seconds of a call, after one that is not counted."""
    call()
    times = []
    for _ in range(rounds):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return statistics.median(times)


def run(basis: str, dims: list[int], rounds: int = 7) -> Result:
    """Rows of `scaling` for one basis at some dimensions, and of `scaling_fits`: an exponent for everything timed."""
    checks.positive_int("rounds", rounds)
    rows: list[Row] = []
    for d in dims:
        process = process_at(basis, d)
        rows += [{"what": what, "basis": basis, "d": d, "seconds": seconds(call, rounds), "bytes": None}
                 for what, call in calls(process)]  # fmt: skip
        rows.append({"what": "memory", "basis": basis, "d": d, "seconds": None, "bytes": held(process)})
    fits = [
        {"what": what, "basis": basis, "quantity": "exponent", "value": fitted}
        for what in dict.fromkeys(row["what"] for row in rows if row["seconds"])
        if (fitted := exponent([(r["d"], r["seconds"]) for r in rows if r["what"] == what])) is not None
    ]
    words = rows[-1]["bytes"] / 8 / rows[-1]["d"]
    fits.append({"what": "memory", "basis": basis, "quantity": "words a direction", "value": words})
    return Result({"scaling": rows, "scaling_fits": fits})


def exponent(points: list[tuple[int, float]]) -> float | None:
    """Slope of log seconds in log d from `FITTED` directions up, by least squares; None with fewer than two there."""
    large = [(math.log(d), math.log(s)) for d, s in points if d >= FITTED]
    return statistics.linear_regression(*zip(*large)).slope if len(large) > 1 else None


def shares(what: str, rounds: int = 7) -> Result:
    """A row of `scaling_fits`: which share of a training is ours, "A update" on a toy or "cosine" at 3 x 32 x 32.

    A update: all rounds of a default adaptation of VSULD, over 6,000 steps and them. cosine: 64 pictures into the basis
    and back, over a training step of `cifar10-small`'s U-Net. Raises ValueError for another name.
    """
    if checks.one_of("what", what, ("A update", "cosine")) == "cosine":
        basis = Cosine((3, 32, 32), {"channels": cosines(3).contiguous()})
        trainer, z = images_trainer()
        value = paired(lambda: basis.back(basis.into(z)), trainer.advance, rounds)[2]
    else:
        process, settings = vsmd.forward_process("VSULD", (2,), beta=5.0), Adaptation()
        small = trainer_of(process, toy("spiral-8Y"), MLP((2,)), 1_024)
        update, step, _ = paired(lambda: small.adapt(0), small.advance, rounds)
        value = settings.rounds * update / (settings.rounds * update + 6_000 * step)
    row = {"what": what, "basis": "cosine" if what == "cosine" else "coordinates", "quantity": "share", "value": value}
    return Result({"scaling_fits": [row]})


def exchanged(config: str = "cifar10-small") -> Result:
    """A row of `scaling`: the bytes that DDP hands to its all-reduce in a step of a configuration's network."""
    network, sizes = vsmd.images.config(config).build((3, 32, 32), 0), list[int]()

    def count(state: object, bucket: Any) -> torch.futures.Future[Tensor]:
        sizes.append(bucket.buffer().nbytes)
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    future = torch.futures.Future[Tensor]
    count.__annotations__ |= {"bucket": getattr(dist, "GradBucket"), "return": future}  # noqa: B009 - DDP looks at them
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{Path(folder) / 'meeting'}", rank=0, world_size=1)
        try:
            wrapped = DistributedDataParallel(network)
            wrapped.register_comm_hook(None, count)
            image = torch.zeros(1, 6 if getattr(network, "levels", False) else 3, 32, 32)
            wrapped(image, torch.zeros(1)).sum().backward()
        finally:
            dist.destroy_process_group()
    row = {"what": "all-reduce", "basis": config, "d": 3_072, "seconds": None, "bytes": sum(sizes)}
    return Result({"scaling": [row]})


def predicted(
    images_per_second: float, batch_size: int, exchange: int, devices: int, bandwidth: float, latency: float = 5e-6
) -> tuple[float, float]:
    """Images a second of N devices and their efficiency by a stated model: computing, then a ring's all-reduce,

        seconds a step = B/rate + 2 (N - 1)/N bytes/bandwidth + 2 (N - 1) latency,   B images a device,

    nothing of the exchange hidden behind the computing: a lower bound. bandwidth: bytes a second of a device's link.
    Raises ValueError for numbers that are not positive.
    """
    for name, value in {"images_per_second": images_per_second, "bandwidth": bandwidth, "latency": latency}.items():
        checks.positive(name, value)
    for name, count in {"batch_size": batch_size, "exchange": exchange, "devices": devices}.items():
        checks.positive_int(name, count)
    computing = batch_size / images_per_second
    ring = 2 * (devices - 1)
    step = computing + ring / devices * exchange / bandwidth + ring * latency
    return devices * batch_size / step, computing / step
