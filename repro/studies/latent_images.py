"""Pictures in latent space against pixel space: the same methods on the codes of a small autoencoder, and a U-Net.

Rows of `latent`: fd is the Fréchet distance of EfficientNet-Lite0's features (FD-EffNet, no FID) between `samples`
pictures and as many test pictures; `real` is what training pictures score, `reconstruction` what they score through the
autoencoder: no bridge can be expected to go below it. train_seconds of a latent method include all of the pre-training.
Rows of `latent_scores`: what A became on the codes, direction by direction.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import vsmd
from repro.grid.runs import Result
from repro.studies.convergence import Row
from repro.studies.image_quality import cleared, on_black
from repro.studies.latent import bridge_of, checkpoint_in, denoisable, row, solver_of
from vsmd import latent, random
from vsmd.data import images
from vsmd.images.pictures import Pictures
from vsmd.metrics.distances import frechet_distance
from vsmd.metrics.frechet import EfficientNetFeatures
from vsmd.networks.mlp import MLP
from vsmd.networks.unet import UNet
from vsmd.training.data import Sampler

SHOWN = 40  # pictures kept for the figures
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
    pictures = images.load(dataset)
    order = torch.randperm(len(pictures.train), generator=random.generator(0, "order"))
    return pictures.train[order[: n_train or None]], pictures.test


@cache
def _features() -> EfficientNetFeatures:
    return EfficientNetFeatures()


@cache
def _reference(dataset: str, count: int) -> Tensor:
    return _features()(_set(dataset, 1)[1][:count])


def drawn_from(train: Tensor) -> Sampler:
    """Draws of uint8 pictures, no stream of all: a bridge's moments are those of draws."""
    return Pictures(train).__call__


def distance(pictures: Tensor, dataset: str, count: int) -> float:
    """FD-EffNet of `count` uint8 pictures to as many test pictures."""
    features = (v.double() for v in (_features()(pictures[:count]), _reference(dataset, count)))
    return frechet_distance(*(moment for v in features for moment in (v.mean(0), v.T.cov())))


def _shown(dataset: str, name: str, seed: int, pictures: Tensor) -> dict[str, Any]:
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
    floor = row(dataset, "real", seed, ambient_dim=size, n_train=len(train), fd=distance(some, dataset, samples))
    return Result({"latent": [floor]}, _shown(dataset, "real", seed, some))


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
    denoise: bool = False,
    workdir: Path | None = None,
) -> Result:
    """Pre-train an autoencoder once, on the set itself, then every bridge on its codes.

    All bridges have the same network, steps and evaluations; training is checkpointed in `workdir`, bridge by bridge.
    denoise: the last evaluation denoises; methods are then named `…+denoise`, and LSBDM, which is never denoised, is
    left out.
    """
    train, test = _set(dataset, n_train)
    x, start = images.to_float(train), time.perf_counter()
    autoencoder = latent.pretrain(
        latent.ImageAutoencoder(tuple(train.shape[1:]), latent_dim, width), drawn_from(train), steps=pretrain_steps,
        batch_size=128, learning_rate=1e-3, code_noise=CODE_NOISE, seed=seed,
        checkpoint=checkpoint_in(workdir, "autoencoder"),
    )  # fmt: skip
    pretraining, n = time.perf_counter() - start, len(train)
    shared: Row = {"ambient_dim": train[0].numel(), "latent_dim": latent_dim, "n_train": n, "n_pretrain": n}
    rows: list[Row] = []
    scores: list[Row] = []
    shown: dict[str, Any] = {}
    for method in denoisable(methods, denoise):
        with random.first_weights(random.generator(seed, "network")):
            network = MLP((latent_dim,), **NETWORK)
        start = time.perf_counter()
        model = latent.fit(
            x, autoencoder=autoencoder, bridge=bridge_of(method, (latent_dim,)), network=network, steps=steps,
            seed=seed, checkpoint=checkpoint_in(workdir, method), **BRIDGE,
        )  # fmt: skip
        timing = {"train_seconds": pretraining + time.perf_counter() - start}
        if not rows:
            error, reconstructed, shown = _reconstructions(model, train[:samples], test, dataset, seed)
            shared["recon_error"] = error
            score = distance(reconstructed, dataset, samples)
            rows.append(row(dataset, "reconstruction", seed, **shared, fd=score))
        pictures, timing["sample_seconds"] = _pictures(model, samples, method, seed, denoise)
        name, score = method + "+denoise" * denoise, distance(images.to_uint8(pictures), dataset, samples)
        rows.append(row(dataset, name, seed, **shared, **timing, fd=score))
        shown |= _shown(dataset, name, seed, images.to_uint8(pictures))
        scores += learned(model, dataset, method, seed)
    return Result({"latent": rows, "latent_scores": scores}, shown)


def _pictures(
    model: vsmd.Model | latent.LatentModel, samples: int, method: str, seed: int, denoise: bool, **options: Any
) -> tuple[Tensor, float]:
    """Samples (n, C, H, W) float by the method's solver, and the seconds they took."""
    solver, steps = solver_of(method, denoise)
    start = time.perf_counter()
    pictures = model.sample(samples, solver, steps, seed, denoise=denoise, checked=False, **options)
    return pictures, time.perf_counter() - start


def _reconstructions(
    model: latent.LatentModel, train: Tensor, test: Tensor, dataset: str, seed: int
) -> tuple[float, Tensor, dict[str, Any]]:
    """The test pictures' recon_error, training pictures as they come back, and pictures of both for the figures."""
    y = images.to_float(test)
    back = model.reconstruct(y)
    error = float((back - y).flatten(1).square().sum(1).mean().sqrt())
    half = SHOWN // 2
    beside = torch.cat([test[:half], images.to_uint8(back[:half])])
    lines = model.interpolate(y[:5], y[5:10], points=8).transpose(0, 1).flatten(0, 1)
    shown = _shown(dataset, "reconstruction", seed, beside)
    shown |= _shown(dataset, "interpolation", seed, images.to_uint8(lines))
    return error, images.to_uint8(model.reconstruct(images.to_float(train))), shown


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
    denoise: bool = False,
    workdir: Path | None = None,
) -> Result:
    """The same method on the pixels themselves, with a small U-Net; named `pixel <method>`, and `…+denoise`.

    Where most of the training pictures is black, `pixel <method>, cleared` scores the samples without haze, too: an
    autoencoder's decoder knows the range of pixels, a diffusion does not, and the distance hears it.
    """
    train, _ = _set(dataset, n_train)
    channels, height, side = train.shape[1:]
    patch = 2 if height >= 16 else 1
    with random.first_weights(random.generator(seed, "network")):
        network = UNet((channels, height, side), width, multipliers=(1, 2), depth=1, attention=(), patch=patch)
    process = vsmd.forward_process(method, (channels, height, side), prior="gaussian")
    start = time.perf_counter()
    model = vsmd.fit(
        process, drawn_from(train), units="raw", network=network, steps=steps, seed=seed,
        checkpoint=checkpoint_in(workdir, "training"), **PIXELS,
    )  # fmt: skip
    shared: Row = {"ambient_dim": train[0].numel(), "n_train": len(train), "train_seconds": time.perf_counter() - start}
    drawn, shared["sample_seconds"] = _pictures(model, samples, method, seed, denoise, batch_size=100)
    name = f"pixel {method}" + "+denoise" * denoise
    if not bool(torch.isfinite(drawn).all()):
        return Result({"latent": [row(dataset, name, seed, **shared, fd=float("nan"))]})
    pictures = images.to_uint8(drawn)
    rows = [row(dataset, name, seed, **shared, fd=distance(pictures, dataset, samples))]
    if on_black(train):
        score = distance(cleared(pictures), dataset, samples)
        rows.append(row(dataset, f"{name}, cleared", seed, **shared, fd=score))
    return Result({"latent": rows}, _shown(dataset, name, seed, pictures))
