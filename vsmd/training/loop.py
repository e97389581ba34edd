"""The training loop that every experiment uses: progress, checkpoints, exact resume."""

from __future__ import annotations

import dataclasses
import math
import signal
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from vsmd import checks, networks
from vsmd.adaptation import Adaptation
from vsmd.model import Model
from vsmd.processes import ForwardProcess
from vsmd.training import checkpoints
from vsmd.training.compute import Compute
from vsmd.training.data import Data
from vsmd.training.stopping import Held
from vsmd.training.trainer import SCHEDULES, Trainer


def fit(
    process: ForwardProcess,
    data: Data,
    *,
    steps: int = 6_000,
    batch_size: int = 1_024,
    learning_rate: float = 4e-3,
    schedule: str = "cosine",
    ema: float = 0.999,
    clip: float = 1.0,
    adaptation: Adaptation | None = None,
    network: nn.Module | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    compute: Compute | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1_000,
    keep: int = 1,
    on_loss: Callable[[int, float], object] | None = None,
    snapshots: Collection[int] = (),
    on_snapshot: Callable[[int, Model], bool | None] | None = None,
    progress: bool = False,
) -> Model:
    """Train a score network for `process` on `data` and return the model with its final process.

    data: tensor (n, *shape), pair (tensor, context), or sampler (n, generator) -> either; where a sampler has a method
    `all_batches()`, an iterator over all of the data, moments are measured with it. steps, batch_size: of Adam at
    `learning_rate` decayed by `schedule` ("cosine", "step", "constant"), gradients clipped to norm `clip` (0: not).
    ema: decay of the weight average that the model uses. adaptation: how A is adapted if the process is adaptive.
    network: an `MLP` by default; it is copied. seed: of everything random; same seed, same machine, same bits.
    compute: precision, memory layout, compilation and accumulation (`Compute`).
    checkpoint: a file to save to every `checkpoint_every` steps and to resume from if it exists, bit for bit; the last
    `keep` are kept. With it SIGTERM and Ctrl-C take effect once the step they fall into is done and saved.
    on_loss(step, loss) is called every 50 steps with their mean loss, on_snapshot(step, model) after each of the steps
    in `snapshots` (those before a resume are not repeated); training ends early where it returns True. progress: a bar
    with loss and time left.

    Where a process group of `torch.distributed` is up, its processes train together, with PyTorch's DDP: all call `fit`
    with the same arguments, `batch_size` is that of all together, and all get the same model. A run may be resumed by
    another number of them. Callbacks run on all of them, at the same steps.
    Raises ValueError or TypeError for bad arguments, FloatingPointError when the loss is not finite, OSError where a
    checkpoint cannot be written.
    """
    if not isinstance(process, ForwardProcess):
        raise TypeError(f"process={type(process).__name__}: must come from vsmd.forward_process")
    checks.one_of("schedule", schedule, SCHEDULES)
    trainer = Trainer(
        process,
        data,
        network,
        steps=checks.positive_int("steps", steps),
        batch_size=checks.positive_int("batch_size", batch_size),
        learning_rate=checks.positive("learning_rate", learning_rate),
        schedule=schedule,
        ema=checks.in_range("ema", ema, 0.0, 1.0),
        clip=checks.in_range("clip", clip, 0.0, math.inf),
        adaptation=adaptation,
        seed=int(seed),
        device=checks.device("device", device),
        compute=compute,
    )
    world, keep = trainer.world, checks.positive_int("keep", keep)
    every = checks.positive_int("checkpoint_every", checkpoint_every)
    path = None if checkpoint is None else Path(checkpoint)
    settings = {
        "process": trainer.process.settings,
        "variational_score": None if trainer.adapts else trainer.process.constant[0].flatten()[:8].tolist(),
        "data": [round(float(v), 6) for m in trainer.process.known() for v in m.flatten()[:8]],
        "network": networks.describe(trainer.network), "steps": steps, "batch_size": batch_size,
        "learning_rate": learning_rate, "schedule": schedule, "ema": ema, "clip": clip, "seed": seed,
        "adaptation": dataclasses.asdict(trainer.how),
        "precision": None if trainer.compute.precision == "float32" else trainer.compute.precision,
    }  # fmt: skip
    if path is not None and path.exists():
        checkpoints.restore(trainer, path, settings)
    shown = progress and world.first
    bar = tqdm(total=steps, initial=trainer.step, desc=process.method, disable=not shown, mininterval=1.0)
    losses: list[Tensor] = []
    stop = 0  # the signal to stop for
    with closing(trainer), Held(path is not None, patient=world.size > 1) as signals:
        while trainer.step < steps:
            losses.append(trainer.advance())
            last = trainer.step == steps
            stop = world.largest(signals.caught)
            saves = path is not None and (trainer.step % every == 0 or last or stop > 0)
            if trainer.step % 50 == 0 or last or saves or trainer.step in snapshots:
                value = world.mean(torch.stack(losses).mean())
                losses.clear()
                if not math.isfinite(value):
                    kept = f"; the last good checkpoint is {path}" if path is not None and path.exists() else ""
                    raise FloatingPointError(
                        f"loss is {value} within the 50 steps up to {trainer.step}: learning_rate={learning_rate:g} is "
                        f"likely too high for this data and network{kept}"
                    )
                bar.set_postfix(loss=f"{value:.4f}", refresh=False)
                if saves and path is not None:
                    checkpoints.save(trainer, path, settings, keep)
                if on_loss is not None:
                    on_loss(trainer.step, value)
            bar.update()
            if stop:
                break
            if on_snapshot is not None and trainer.step in snapshots:
                enough = on_snapshot(trainer.step, trainer.model())
                if world.largest(int(bool(enough))):  # all processes end together
                    break
    bar.close()
    if stop:
        world.wait()
        signal.raise_signal(stop)
        raise KeyboardInterrupt  # where a handler returned
    if not all(bool(torch.isfinite(p).all()) for p in trainer.averages):
        raise FloatingPointError(
            f"weights are not finite after step {trainer.step}: learning_rate={learning_rate:g} is too high"
        )
    return trainer.model()
