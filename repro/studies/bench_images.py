"""Benches of training and sampling images (`bench`), on the configuration `cifar10-small`."""

from __future__ import annotations

import copy
import os
import statistics
import subprocess
import sys
import time

import torch
from torch import Tensor

import vsmd
import vsmd.images
from repro.studies.throughput import bare_step
from repro.studies.timing import paired, trainer_of
from vsmd import random
from vsmd.images.pictures import Pictures
from vsmd.samplers import make_solver, time_grid
from vsmd.samplers.base import no_noise
from vsmd.training.distributed import launched
from vsmd.training.trainer import Trainer


def images_trainer() -> tuple[Trainer, Tensor]:
    """The trainer of `cifar10-small` (VSULD, batches of 64) on grey noise, and a batch of its input."""
    torch.set_num_threads(1)
    chosen, shape = vsmd.images.config("cifar10-small"), (3, 32, 32)
    values = torch.randint(256, (512, *shape), generator=random.generator(0, "bench"), dtype=torch.uint8)
    size, process = chosen.training.batch_size, chosen.process(shape)
    trainer = trainer_of(process, Pictures(values, flips=True), chosen.build(shape, 0), size)
    return trainer, torch.randn(size, *shape, generator=random.generator(0, "bench"))


def images_train_step(rounds: int) -> tuple[float, float, float]:
    """A training step of 64 images 3 x 32 x 32 against forward, backward and optimiser of the bare U-Net."""
    trainer, z = images_trainer()
    chosen = vsmd.images.config("cifar10-small")
    reference = bare_step(copy.deepcopy(trainer.network), chosen, len(z), tuple(z.shape[1:]))
    return paired(trainer.advance, reference, rounds)


def images_solver_step(rounds: int) -> tuple[float, float, float]:
    """A Heun step of 64 images 3 x 32 x 32 against its two calls of the bare U-Net."""
    trainer, z = images_trainer()
    network = trainer.average
    solver = make_solver("heun", vsmd.scores.Score(trainer.process, network), time_grid(10))
    a, image, level = torch.stack([z, z.flip(0)], 1), torch.cat([z, torch.zeros_like(z)], 1), torch.zeros(1)
    with torch.no_grad():
        return paired(
            lambda: solver.step(a, 4, no_noise), lambda: (network(image, level), network(image, level)), rounds
        )


def images_rate() -> None:
    """Print the seconds an image of training, of all processes that torchrun started; one thread each."""
    with launched("cpu"):
        trainer, _ = images_trainer()
        trainer.advance()
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            trainer.advance()
            times.append(time.perf_counter() - begin)
        if trainer.world.first:
            print(statistics.median(times) / trainer.batch_size)


def images_scaling(rounds: int) -> tuple[float, float, float]:
    """Seconds an image of two processes, one thread each and over gloo, against one: half, on two idle cores."""

    def seconds(processes: int) -> float:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command += ["--no-python", sys.executable, "-c", "from repro.studies.bench_images import images_rate as f; f()"]
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        return float(done.stdout)

    pairs = [(seconds(2), seconds(1)) for _ in range(rounds)]
    ours, reference = (statistics.median(v) for v in zip(*pairs))
    return ours, reference, statistics.median(a / b for a, b in pairs)
