"""Pictures in latent space against pixel space: the same methods on the codes of a small autoencoder, and a U-Net.

Rows of `latent`: fd is the Fréchet distance of EfficientNet-Lite0's features (FD-EffNet, no FID) between `samples`
pictures and as many test pictures; `real` is what training pictures score, `reconstruction` what they score through the
autoencoder: no bridge can be expected to go below it. train_seconds of a latent method include all of the pre-training.
Rows of `latent_scores`: what A became on the codes, direction by direction.
"""

from __future__ import annotations

import math
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import vsmd
from repro.grid.runs import Result
from repro.studies.convergence import Row
from repro.studies.latent import bridge_of, row, solver_of
from vsmd import latent, random
from vsmd.data import images
from vsmd.metrics.distances import frechet_distance_of
from vsmd.metrics.frechet import EfficientNetFeatures
from vsmd.networks.mlp import MLP
from vsmd.networks.unet import UNet

SHOWN = 40  # pictures kept for the figures
FAINT = 26  # of 255: what `cleared` sets to black
CODE_NOISE = 0.1  # of pre-training, about what the early stop leaves
BRIDGE: dict[str, Any] = {
    "batch_size": 256, "learning_rate": 2e-3, "adaptation": vsmd.Adaptation(rounds=10, paths=500, nodes=20),
}  # fmt: skip
NETWORK = {"width": 256, "depth": 3}
PIXELS: dict[str, Any] = {
    "batch_size": 64, "learning_rate": 2e-3, "ema": 0.99, "adaptation": vsmd.Adaptation(rounds=8, paths=64, nodes=8),
}  # fmt: skip


@cache
def _set(dataset: str, n_train: int) -> tuple[Tensor, Tensor]:
    """Training pictures in a fixed random order (the first n_train; 0: all) and test pictures, uint8."""
    found = images.load(dataset)
    order = torch.randperm(len(found.train), generator=random.generator(0, "order"))
    return found.train[order[: n_train or None]], found.test


@cache
def _features() -> EfficientNetFeatures:
    return EfficientNetFeatures()


@cache
def _reference(dataset: str, count: int) -> Tensor:
    return _features()(_set(dataset, 1)[1][:count])


def distance(pictures: Tensor, dataset: str, count: int) -> float:
    """FD-EffNet of `count` uint8 pictures to as many test pictures."""
    return frechet_distance_of(_features()(pictures[:count]), _reference(dataset, count))


def cleared(pictures: Tensor) -> Tensor:
    """Pictures on black with their faintest tenth of levels set to black, where a diffusion on pixels leaves a haze."""
    return torch.where(pictures < FAINT, torch.zeros_like(pictures), pictures)


def _kept(dataset: str, name: str, seed: int, pictures: Tensor) -> dict[str, Any]:
    """Pictures as rows of 0 … 255, for `Store.points`."""
    return {f"latent_{dataset}_{name.replace(' ', '-')}_{seed}": pictures[:SHOWN].flatten(1).numpy()}


def available(names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Those of the image sets that can be had here, and for the others the reason why not."""
    missing: dict[str, str] = {}
    for name in names:
        try:
            images.load(name)
        except (FileNotFoundError, ImportError, ValueError) as error:
            missing[name] = str(error)
    return [name for name in names if name not in missing], missing


def baseline(dataset: str, seed: int, samples: int, n_train: int = 0) -> Result:
    """The floor: other training pictures against the test pictures, at the same number."""
    train, _ = _set(dataset, n_train)
    some = train[torch.randperm(len(train), generator=random.generator(seed, "real"))[:samples]]
    size = train[0].numel()
    made = row(dataset, "real", seed, ambient_dim=size, n_train=len(train), fd=distance(some, dataset, samples))
    return Result({"latent": [made]}, _kept(dataset, "real", seed, some))


def run_latent(
    dataset: str,
    seed: int,
    methods: list[str],
    latent_dim: int,
    samples: int,
    n_train: int = 0,
    pretrain_steps: int = 2_000,
    steps: int = 3_000,
    width: int = 32,
    workdir: Path | None = None,
) -> Result:
    """Pre-train an autoencoder once, on the set itself, then every bridge on its codes.

    All bridges have the same network, steps and evaluations; training is checkpointed in `workdir`, bridge by bridge.
    """
    train, test = _set(dataset, n_train)
    shape, x = tuple(train.shape[1:]), images.to_float(train)
    start = time.perf_counter()
    autoencoder = latent.pretrain(
        latent.ImageAutoencoder(shape, latent_dim, width), images.sampler(train), steps=pretrain_steps, batch_size=128,
        learning_rate=1e-3, code_noise=CODE_NOISE, seed=seed,
        checkpoint=None if workdir is None else workdir / "autoencoder.safetensors",
    )  # fmt: skip
    pretrained = time.perf_counter() - start
    shared: Row = {
        "ambient_dim": math.prod(shape), "latent_dim": latent_dim, "n_train": len(train), "n_pretrain": len(train),
    }  # fmt: skip
    rows: list[Row] = []
    scores: list[Row] = []
    kept: dict[str, Any] = {}
    for method in methods:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random.generator(seed, "network").initial_seed())
            network = MLP((latent_dim,), **NETWORK)
        start = time.perf_counter()
        path = None if workdir is None else workdir / f"{method.replace(' ', '-')}.safetensors"
        model = latent.fit(
            x, autoencoder=autoencoder, bridge=bridge_of(method, (latent_dim,)), network=network, steps=steps,
            seed=seed, checkpoint=path, **BRIDGE,
        )  # fmt: skip
        timing = {"train_seconds": pretrained + time.perf_counter() - start}
        if not rows:
            y = images.to_float(test)
            back = model.reconstruct(y)
            shared["recon_error"] = float((back - y).flatten(1).square().sum(1).mean().sqrt())
            again = images.to_uint8(model.reconstruct(x[:samples]))
            rows.append(row(dataset, "reconstruction", seed, **shared, fd=distance(again, dataset, samples)))
            half = SHOWN // 2
            kept |= _kept(dataset, "reconstruction", seed, torch.cat([test[:half], images.to_uint8(back[:half])]))
            path_between = model.interpolate(y[:5], y[5:10], points=8).transpose(0, 1).flatten(0, 1)
            kept |= _kept(dataset, "interpolation", seed, images.to_uint8(path_between))
        solver, count = solver_of(method)
        start = time.perf_counter()
        drawn = model.sample(samples, solver, count, seed, denoise=False)
        timing["sample_seconds"] = time.perf_counter() - start
        pictures = images.to_uint8(drawn)
        rows.append(row(dataset, method, seed, **shared, **timing, fd=distance(pictures, dataset, samples)))
        kept |= _kept(dataset, method, seed, pictures)
        scores += learned(model, dataset, method, seed)
    return Result({"latent": rows, "latent_scores": scores}, kept)


def learned(model: latent.LatentModel, experiment: str, method: str, seed: int) -> list[Row]:
    """Standard deviation of the codes and stiffness along each direction, largest first; at t = 1/2 where A varies."""
    process = model.process
    std = process.known().var.sqrt().flatten()
    stiffness = process.rates(torch.tensor([0.5], dtype=torch.float64))[0].expand(1, *process.shape).flatten()
    order = std.argsort(descending=True)
    return [
        {"experiment": experiment, "method": method, "seed": seed, "direction": i, "std": float(std[j]),
         "stiffness": float(stiffness[j])}
        for i, j in enumerate(order.tolist())
    ]  # fmt: skip


def run_pixels(
    dataset: str,
    method: str,
    seed: int,
    samples: int,
    n_train: int = 0,
    steps: int = 3_000,
    width: int = 32,
    workdir: Path | None = None,
) -> Result:
    """The same method on the pixels themselves, with a small U-Net; named `pixel <method>`.

    Where most of the training pictures is black, `pixel <method>, cleared` scores the samples without haze, too: an
    autoencoder's decoder knows the range of pixels, a diffusion does not, and the distance hears it.
    """
    train, _ = _set(dataset, n_train)
    channels, height, side = train.shape[1:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random.generator(seed, "network").initial_seed())
        patch = 2 if height >= 16 else 1
        network = UNet((channels, height, side), width, multipliers=(1, 2), depth=1, attention=(), patch=patch)
    process = vsmd.forward_process(method, (channels, height, side))
    start = time.perf_counter()
    model = vsmd.fit(
        process, images.sampler(train), network=network, steps=steps, seed=seed,
        checkpoint=None if workdir is None else workdir / "training.safetensors", **PIXELS,
    )  # fmt: skip
    shared: Row = {"ambient_dim": train[0].numel(), "n_train": len(train), "train_seconds": time.perf_counter() - start}
    solver, count = solver_of(method)
    start = time.perf_counter()
    drawn = model.sample(samples, solver, count, seed, batch_size=100, denoise=False)
    shared["sample_seconds"] = time.perf_counter() - start
    name = f"pixel {method}"
    if not bool(torch.isfinite(drawn).all()):
        return Result({"latent": [row(dataset, name, seed, **shared, fd=float("nan"))]})
    pictures = images.to_uint8(drawn)
    rows = [row(dataset, name, seed, **shared, fd=distance(pictures, dataset, samples))]
    if float((train == 0).double().mean()) > 0.5:
        score = distance(cleared(pictures), dataset, samples)
        rows.append(row(dataset, f"{name}, cleared", seed, **shared, fd=score))
    return Result({"latent": rows}, _kept(dataset, name, seed, pictures))
