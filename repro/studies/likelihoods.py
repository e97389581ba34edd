"""Bits per dimension: the exact likelihood of dequantised images under a trained model."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from torch import Tensor

from repro.grid.runs import Result
from repro.studies.image_quality import Row
from repro.studies.images import COLUMNS, configured
from vsmd import random
from vsmd.data.images import load
from vsmd.training import checkpoints, fit

LEVELS = {"digits": 17}  # grey levels of a set, where they are not 256


def dequantised(images: Tensor, levels: int, generator: torch.Generator) -> Tensor:
    """uint8 images as float32 in [-1, 1]: level k of `levels`, uniformly within its bin, (k + u) 2/levels - 1."""
    k = (images.float() * ((levels - 1) / 255)).round()
    return (k + torch.rand(k.shape, generator=generator)) * (2 / levels) - 1


def bits(log_prob: Tensor, dim: int, levels: int) -> Tensor:
    """Bits per dimension of dequantised images from their log-density in nats: an upper bound of the levels' own."""
    return (-log_prob.double() / dim + math.log(levels / 2)) / math.log(2)


def likelihood(
    config: str,
    method: str,
    seed: int,
    images: int,
    steps: int,
    settings: Row = {},  # noqa: B006 - never mutated
    tolerance: float = 1e-3,
    workdir: Path | None = None,
) -> Result:
    """Bits per dimension of test images under a model trained on dequantised ones, by the exact log-density.

    The divergence is a trace over all dimensions, one product each: d² in all, so few and small images. steps: of
    training. tolerance: rtol and atol of the adaptive solver. Beside it the Gaussian of the training images' mean and
    covariance, and the uniform law.
    """
    chosen = configured(config, method, seed, {**settings, "steps": steps})
    pictures, levels = load(chosen.data.images), LEVELS.get(chosen.data.images, 256)

    def draw(n: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(pictures.train), (n,), generator=generator)
        return dequantised(pictures.train[rows], levels, generator)

    path = None if workdir is None else workdir / "training.safetensors"
    begun = checkpoints.step_of(path) if path is not None and path.exists() else 0
    start, network = time.perf_counter(), chosen.build(pictures.shape, 0)
    model = fit(
        chosen.process(pictures.shape), draw, **chosen.fitting, network=network, checkpoint=path,
        checkpoint_every=chosen.checkpoints.every,
    )  # fmt: skip
    # The rate is this process's, which may have gone on from a checkpoint; nan where nothing was left to train.
    seen = chosen.training.steps * chosen.training.batch_size
    fresh = seen - begun * chosen.training.batch_size
    rate = fresh / (time.perf_counter() - start) if fresh else math.nan
    x = dequantised(pictures.test[:images], levels, random.generator(seed, "dequantise"))
    many = draw(20_000, random.generator(seed, "dequantise", "gaussian")).flatten(1).double()
    gaussian = torch.distributions.MultivariateNormal(many.mean(0), many.T.cov())
    values = {
        method: model.log_prob(x, seed=seed, rtol=tolerance, atol=tolerance),
        "gaussian": gaussian.log_prob(x.flatten(1).double()),
        "uniform": torch.full((images,), -model.process.dim * math.log(2)),
    }
    training = {
        "params": sum(p.numel() for p in network.parameters()), "solver": "rk45", "images_seen": seen,
        "train_seconds": seen / rate, "images_per_second": rate,
    }  # fmt: skip
    shared = {
        "dataset": chosen.data.images, "metric": "bits per dimension", "n_samples": images, "world_size": 1,
        "device": "cpu",
    }  # fmt: skip
    rows = []
    for name, log_prob in values.items():
        value = float(bits(log_prob, model.process.dim, levels).mean())
        rows.append(shared | {"method": name, "value": value} | (training if name == method else {}))
    return Result({"images": [{c: row.get(c) for c in COLUMNS} for row in rows]})
