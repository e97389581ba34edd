"""Images a second of training on one device, beside those of the bare network: what a run on N of them takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

import torch
from torch import nn

from repro.grid.runs import Result
from repro.studies.image_quality import Row, device
from repro.studies.images import configured, device_name
from vsmd import random
from vsmd.data.images import load
from vsmd.images.configs import Config
from vsmd.images.pictures import Pictures
from vsmd.training.trainer import Trainer


def throughput(
    config: str,
    method: str,
    batch_size: int,
    steps: int,
    settings: Row = {},  # noqa: B006 - never mutated
) -> Result:
    """Images a second of training by a configuration, on the GPU if there is one: a row of `images_throughput`.

    Beside it the bare network's: forward, backward and optimiser alone, in the same precision, layout and compilation.
    `steps` steps are timed after two others, which hold compilation. bare_share: the bare network's time over the
    training step's. peak_memory_gb: of the GPU, in training. hours_200M_on_8: 200 M images on eight such devices, less
    what they lose to each other.
    """
    chosen, where = configured(config, method, 0, {**settings, "batch_size": batch_size}), device()
    pictures = load(chosen.data.images)
    network = chosen.build(pictures.shape, 0)
    fitting = chosen.fitting | {"steps": 1_000 * (steps + 2)}
    assert fitting.pop("units") == "raw"  # as the process is already
    trainer = Trainer(
        chosen.process(pictures.shape), Pictures(pictures.train, chosen.data.flips), network, **fitting, device=where,
    )  # fmt: skip
    with closing(trainer):
        rate = steps * batch_size / _seconds(trainer.advance, steps, where)
    peak = torch.cuda.max_memory_allocated(where) / 1e9 if where.type == "cuda" else None
    bare = steps * batch_size / _seconds(bare_step(network.to(where), chosen, batch_size, pictures.shape), steps, where)
    row = {
        "config": config, "method": method, "params": sum(p.numel() for p in network.parameters()),
        "device": device_name(where), "precision": chosen.compute.precision, "batch_size": batch_size,
        "images_per_second": rate, "bare_images_per_second": bare, "bare_share": rate / bare, "peak_memory_gb": peak,
        "hours_200M_on_8": 200e6 / (8 * rate) / 3600,
    }  # fmt: skip
    return Result({"images_throughput": [row]})


def bare_step(network: nn.Module, chosen: Config, batch_size: int, shape: tuple[int, ...]) -> Callable[[], object]:
    """A function that takes one step of the network alone, in place: forward, backward and optimiser."""
    stream = random.generator(0, "throughput")
    where = next(network.parameters()).device
    image, target = (torch.randn(batch_size, *shape, generator=stream).to(where) for _ in range(2))
    if getattr(network, "levels", False):
        image = torch.cat([image, torch.zeros_like(image)], 1)
    level = torch.zeros(batch_size, device=where)
    called = chosen.compute.called(chosen.compute.laid_out(network))
    optimizer = torch.optim.AdamW(network.parameters(), lr=chosen.training.learning_rate, weight_decay=0.0, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.mse_loss(called(image, level), target).backward()
        optimizer.step()

    return step


def _seconds(step: Callable[[], object], steps: int, where: torch.device) -> float:
    """What `steps` calls take after two others, on whatever device."""

    def clock() -> float:
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        return time.perf_counter()

    for _ in range(2):
        step()
    begin = clock()
    for _ in range(steps):
        step()
    return clock() - begin
