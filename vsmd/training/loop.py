"""The training loop that every experiment uses: progress, checkpoints, exact resume.

Everything random is a function of (seed, step): the same seed gives the same bits on the same machine. A run resumes
from its checkpoint bit for bit; with more steps than the checkpoint's, learning rate and A's rounds go on as the longer
run has them. With a checkpoint SIGTERM and Ctrl-C take effect once the step that they fall into is saved.

Callbacks: on_start(step) before the first step, the checkpoint's if there is one, which has been accepted;
on_loss(step, loss) with the mean of the last 50 steps; on_snapshot(step, model) after the steps in `snapshots`, by a
resume also for the step that it goes on from, since the run before may have ended within that call; training ends where
it returns True.
Moments of a sampler are those of draws, or of `all_batches()`, an iterator over all of its data, where it has that.
Processes of a `torch.distributed` group train together (`vsmd.training.distributed`).
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm

from vsmd import checks, files
from vsmd.adaptation import Adaptation
from vsmd.couplings import MixtureFit
from vsmd.model import Model
from vsmd.processes import ForwardProcess
from vsmd.training import checkpoints
from vsmd.training.compute import Compute
from vsmd.training.data import Data
from vsmd.training.stopping import Held
from vsmd.training.trainer import Trainer

EVERY = 50  # steps between two looks at the loss


def fit(
    process: ForwardProcess,
    data: Data,
    *,
    units: str | None = None,
    steps: int = 6_000,
    batch_size: int = 1_024,
    learning_rate: float = 4e-3,
    schedule: str = "cosine",
    ema: float = 0.999,
    clip: float = 1.0,
    weighting: str = "score",
    adaptation: Adaptation | None = None,
    mixture: MixtureFit | None = None,
    network: nn.Module | None = None,
    init: Model | None = None,
    context_dropout: float = 0.0,
    seed: int = 0,
    device: str | torch.device = "cpu",
    compute: Compute | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1_000,
    keep: int = 1,
    on_start: Callable[[int], object] | None = None,
    on_loss: Callable[[int, float], object] | None = None,
    snapshots: Collection[int] = (),
    on_snapshot: Callable[[int, Model], bool | None] | None = None,
    progress: bool = False,
) -> Model:
    """Train a score network on `data`, min E w |target - net(z, log snr)|^2, A adapted on the way; the `Model`.

    data: points (n, *shape) or (points, context) as tensors, arrays, frames, Dataset, or a DataLoader for its dataset;
        or a sampler (n, generator) -> such. context: labels (n,), integers from 0, or real numbers (n, features).
    units: that the process sees them in (`vsmd.units`), "standardised" (default: per coordinate), "scaled" (default of
        backbones, whose pixels have one scale), "whitened" or "raw"; those of `init` where there is one.
    steps, batch_size, learning_rate, schedule: of Adam (default 6,000 of 1,024 points, 4e-3, "cosine").
    ema, clip: decay of the weight average, in [0, 1] (default .999); largest norm of a gradient (default 1; 0: any).
    weighting: of noise levels, "score" (default), "unit" or, for backbones, "backbone" (`vsmd.training.pairs`).
    adaptation, mixture: how A is adapted, a mixture score fitted, where there is one (`Adaptation()`, `MixtureFit()`).
    network: of scores, copied (default `MLP(shape)`, or a `ConditionalMLP` for the context); see `vsmd.networks`.
    init: a model in its place, to go on from: its weights, and its A where both processes adapt theirs.
    context_dropout: share of points whose context is left out (default 0; at .1 `Model.sample` can guide).
    seed: of everything random (default 0). device, compute: where and how a step is computed ("cpu", `Compute()`).
    checkpoint: a file to save to every `checkpoint_every` steps (1,000; the last `keep`, 1, stay), and to resume from.
    snapshots: steps after which `on_snapshot` is called. on_start, on_loss, on_snapshot: see `vsmd.training.loop`.
    progress: show a bar.

    Raises ValueError or TypeError for bad arguments, FloatingPointError when the loss is not finite, OSError where a
    checkpoint cannot be written. Warns (`vsmd.diagnostics`) where the process does not suit the data at either end.
    """
    process, network = _initial(process, units, network, init)
    trainer = Trainer(
        process, data, network, steps=steps, batch_size=batch_size, learning_rate=learning_rate, schedule=schedule,
        ema=ema, clip=clip, adaptation=adaptation, mixture=mixture, weighting=weighting, seed=seed, progress=progress,
        device=checks.device("device", device), compute=compute, context_dropout=context_dropout,
    )  # fmt: skip
    path = None if checkpoint is None else files.check_writable(Path(checkpoint), "checkpoint")
    trainer.check()
    every, keep = checks.positive_int("checkpoint_every", checkpoint_every), checks.positive_int("keep", keep)
    return _Run(trainer, path, every, keep, on_start, on_loss, snapshots, on_snapshot, progress).finish()


def _initial(
    process: ForwardProcess, units: str | None, network: nn.Module | None, init: Model | None
) -> tuple[ForwardProcess, nn.Module | None]:
    """Process and network that a run begins with; ValueError or TypeError for none, or a model of other data."""
    if not isinstance(process, ForwardProcess):
        raise TypeError(f"process={type(process).__name__}: must come from vsmd.forward_process")
    if init is None:
        default = "scaled" if getattr(network, "backbone", False) else "standardised"
        return process.with_units(default if units is None else units), network
    if not isinstance(init, Model):
        raise TypeError(f"init={type(init).__name__}: must be a model, as vsmd.fit or vsmd.load returns it")
    if network is not None:
        raise ValueError(f"network={type(network).__name__}: init brings its own; leave one of them out")
    if init.process.shape != process.shape:
        raise ValueError(f"init: is a model of data {init.process.shape}; must be of {process.shape}, as the process")
    process = process.with_units(init.process.units.name if units is None else units)
    if init.process.units.name != process.units.name:
        raise ValueError(f"init: is a model of {init.process.units.name} data; must be of {units} ones, as units")
    both = {p.variational_score for p in (process, init.process)} == {"adaptive"} and process.k == init.process.k
    return process.with_rates(*init.process.constant) if both else process, init.network


@dataclass
class _Run:
    """A trainer on its way to the end, with what is saved and who is told; fields as of `fit`."""

    trainer: Trainer
    path: Path | None
    every: int
    keep: int
    on_start: Callable[[int], object] | None
    on_loss: Callable[[int, float], object] | None
    snapshots: Collection[int]
    on_snapshot: Callable[[int, Model], bool | None] | None
    progress: bool

    def finish(self) -> Model:
        """Resume, train until the last step, a callback or a signal, and return the model."""
        trainer, world = self.trainer, self.trainer.world
        resumed = self.path is not None and self.path.exists()
        if resumed and self.path is not None:
            checkpoints.restore(trainer, self.path)
        if self.on_start is not None:
            self.on_start(trainer.step)
        shown, name = self.progress and world.first, trainer.process.method
        self.bar = tqdm(total=trainer.steps, initial=trainer.step, desc=name, disable=not shown, mininterval=1.0)
        stop, enough = 0, False  # the signal to stop for; what a callback says
        with closing(trainer), Held(self.path is not None, patient=world.size > 1) as signals:
            enough = resumed and self.snapshot()
            while trainer.step < trainer.steps and not stop and not enough:
                trainer.losses.append(trainer.advance())
                stop = world.largest(signals.caught)
                self.look(stopping=stop > 0)
                self.bar.update()
                enough = not stop and self.snapshot()
            stop = stop or world.largest(signals.caught)  # within the last callback
        self.bar.close()
        if stop:
            world.wait()
            signal.raise_signal(stop)
            raise KeyboardInterrupt  # where a handler returned
        if not all(bool(torch.isfinite(p).all()) for p in trainer.averages):
            said = f"learning_rate={trainer.rate:g} is too high"
            raise FloatingPointError(f"weights are not finite after step {trainer.step}: {said}")
        return trainer.model()

    def look(self, stopping: bool) -> None:
        """Where this step has one: the mean loss, a checkpoint, and `on_loss`; FloatingPointError for a bad loss.

        A run that stops between two looks takes its losses along, so that the one that goes on has the same log.
        """
        trainer, path, step = self.trainer, self.path, self.trainer.step
        saves = path is not None and (step % self.every == 0 or step == trainer.steps)
        due = step % EVERY == 0 or step == trainer.steps or saves or step in self.snapshots
        if not (due or (stopping and path is not None)):
            return
        loss = trainer.world.mean(torch.stack(trainer.losses).mean())
        if not math.isfinite(loss):
            good = f"; the last good checkpoint is {path}" if path is not None and path.exists() else ""
            raise FloatingPointError(
                f"loss is {loss} within the {EVERY} steps up to {step}: learning_rate={trainer.rate:g} is likely too "
                f"high for this data and network{good}"
            )
        if due:
            trainer.losses.clear()
            self.bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        if due and self.on_loss is not None:  # before the checkpoint: a run that goes on from it has been told the loss
            self.on_loss(step, loss)
        if path is not None and (saves or stopping):
            checkpoints.save(trainer, path, self.keep)

    def snapshot(self) -> bool:
        """Show the model where this step has a snapshot; whether training is to end, for all processes alike."""
        if self.on_snapshot is None or self.trainer.step not in self.snapshots:
            return False
        enough = self.on_snapshot(self.trainer.step, self.trainer.model())
        return bool(self.trainer.world.largest(int(bool(enough))))
