"""Pre-training of an autoencoder by reconstruction, with checkpoints and exact resume."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from vsmd import checks, files, moments, random
from vsmd.latent.autoencoder import Autoencoder
from vsmd.training import checkpoints
from vsmd.training.data import Data, Source

FORMAT = "vsmd-pretraining-1"
A = TypeVar("A", bound=Autoencoder)


def pretrain(
    autoencoder: A,
    data: Data,
    *,
    steps: int = 2_000,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
    code_noise: float = 0.0,
    units: str | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 500,
    progress: bool = False,
) -> A:
    """A trained copy of an autoencoder: min E loss(encode(x) + code_noise size n, x), n ~ N(0, I), by Adam.

    autoencoder: a `VectorAutoencoder` or `ImageAutoencoder`; its weights are drawn anew.
    data: as of `vsmd.fit`; of any law, not only the one to be generated.
    steps, batch_size, learning_rate: of Adam with cosine decay (default 2,000 of 256 points, 2e-3).
    code_noise: noise on the codes in units of the batch's root mean square deviation (default 0); it keeps the decoder
        smooth about the codes, where a bridge that stops early ends.
    units: of what it sees: "standardised" a coordinate (default for vectors), or all "scaled" alike (images).
    seed, device: of everything random (default 0); where it computes, and where the copy is (default "cpu").
    checkpoint: a file to save to every `checkpoint_every` steps (default 500) and to resume from, bit for bit, or on.
    progress: show a bar.

    Raises ValueError for bad arguments, FloatingPointError when the loss is not finite, OSError where a checkpoint
    cannot be written.
    """
    steps, batch_size = checks.positive_int("steps", steps), checks.positive_int("batch_size", batch_size)
    learning_rate = checks.positive("learning_rate", learning_rate)
    code_noise = checks.in_range("code_noise", code_noise, 0.0, 10.0)
    every = checks.positive_int("checkpoint_every", checkpoint_every)
    units = checks.one_of("units", units or autoencoder.units, ("standardised", "scaled"))
    path = None if checkpoint is None else files.check_writable(Path(checkpoint), "checkpoint")
    source = Source(data, autoencoder.shape)
    with random.first_weights(random.generator(seed, "autoencoder")):
        model = type(autoencoder)(**autoencoder.settings).to(checks.device("device", device))
    model.fit_scale(source.points(random.generator(seed, "pretraining scale")), units)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    settings = {
        "autoencoder": {"name": model.name, **model.settings}, "steps": steps, "batch_size": batch_size,
        "learning_rate": learning_rate, "code_noise": code_noise, "seed": int(seed),
        "data": moments.told(model.centre, model.scale.expand(model.centre.shape)),
    }  # fmt: skip
    modules: dict[str, nn.Module] = {"network": model}
    done = 0
    if path is not None and path.exists():
        done = checkpoints.resumed(path, *files.read(path, FORMAT), settings, modules, optimizer)
    for step in tqdm(range(done + 1, steps + 1), desc="pre-training", disable=not progress, mininterval=1.0):
        stream = random.generator(seed, "pretraining", step)
        loss = _loss(model, source.draw(batch_size, stream).x, code_noise, stream)
        _descend(model, optimizer, loss, learning_rate * 0.5 * (1 + math.cos(math.pi * (step - 1) / steps)))
        if step % 50 == 0 or step == steps:
            if not math.isfinite(loss.item()):
                raise FloatingPointError(f"loss is not finite at step {step}: {learning_rate=:g} is too high")
            if path is not None and (step % every == 0 or step == steps):
                files.write(path, FORMAT, checkpoints.state(modules, optimizer), {"step": step, "settings": settings})
    return copy.deepcopy(model).eval().requires_grad_(False)  # type: ignore[return-value]  # of the class given


def _loss(model: Autoencoder, x: Tensor, code_noise: float, stream: torch.Generator) -> Tensor:
    """The loss of points x (n, *shape), with Gaussian noise on their codes."""
    z = model.encode(x := x.to(model.scale.device))
    if code_noise:
        size = (z.detach() - z.detach().mean(0)).square().mean().sqrt()
        z = z + code_noise * size * torch.randn(z.shape, generator=stream).to(z.device)
    return model.loss(z, x)


def _descend(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """One step down the loss, the gradient clipped to norm 1."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
    optimizer.step()
