"""The training loop that every experiment uses: progress, checkpoints, exact resume."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from vsmd import checks
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
    steps: int = 6_000,
    batch_size: int = 1_024,
    learning_rate: float = 4e-3,
    schedule: str = "cosine",
    ema: float = 0.999,
    clip: float = 1.0,
    adaptation: Adaptation | None = None,
    mixture: MixtureFit | None = None,
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
    """Train a score network on `data`, min E kappa^2 |target - net(z, log snr)|^2, A adapted on the way; the `Model`.

    data: tensor (n, *shape), pair (tensor, context) or sampler (n, generator) -> either; where it has `all_batches()`,
        an iterator over all of the data, moments are measured with that.
    steps, batch_size: of Adam (default 6,000 of 1,024 points).
    learning_rate, schedule: its rate > 0 (default 4e-3) and decay, "cosine" (default), "step" or "constant".
    ema, clip: decay of the weight average, in [0, 1] (default .999); largest norm of a gradient (default 1; 0: any).
    adaptation: how A is adapted if the process is adaptive (default `Adaptation()`).
    mixture: how a mixture variational score is fitted if the process has one (default `MixtureFit()`).
    network: of scores, copied (default `MLP(shape)`); see `vsmd.networks`.
    seed: of everything random (default 0); same seed, same machine, same bits.
    device, compute: where and how a step is computed (default "cpu", `Compute()`).
    checkpoint: a file to save to every `checkpoint_every` steps (default 1,000) and to resume from if it exists, bit
        for bit. With it SIGTERM and Ctrl-C take effect once the step they fall into is done and saved.
    keep: the last checkpoints that are kept (default 1).
    on_loss: called as on_loss(step, loss) with the mean of the last 50 steps.
    snapshots, on_snapshot: steps after which on_snapshot(step, model) is called (not again after a resume); training
        ends early where it returns True.
    progress: show a bar with loss and time left.

    Processes of a `torch.distributed` group train together (`vsmd.training.distributed`).
    Raises ValueError or TypeError for bad arguments, FloatingPointError when the loss is not finite, OSError where a
    checkpoint cannot be written.
    """
    if not isinstance(process, ForwardProcess):
        raise TypeError(f"process={type(process).__name__}: must come from vsmd.forward_process")
    trainer = Trainer(
        process, data, network, steps=steps, batch_size=batch_size, learning_rate=learning_rate, schedule=schedule,
        ema=ema, clip=clip, adaptation=adaptation, seed=seed, device=checks.device("device", device), compute=compute,
        mixture=mixture, progress=progress,
    )  # fmt: skip
    path = None if checkpoint is None else Path(checkpoint)
    every, keep = checks.positive_int("checkpoint_every", checkpoint_every), checks.positive_int("keep", keep)
    return _Run(trainer, path, every, keep, on_loss, snapshots, on_snapshot, progress).finish()


@dataclass
class _Run:
    """A trainer on its way to the end, with what is saved and who is told; fields as of `fit`."""

    trainer: Trainer
    path: Path | None
    every: int
    keep: int
    on_loss: Callable[[int, float], object] | None
    snapshots: Collection[int]
    on_snapshot: Callable[[int, Model], bool | None] | None
    progress: bool
    losses: list[Tensor] = field(default_factory=list)  # since the last look

    def finish(self) -> Model:
        """Resume, train until the last step, a callback or a signal, and return the model."""
        trainer, world = self.trainer, self.trainer.world
        if self.path is not None and self.path.exists():
            checkpoints.restore(trainer, self.path)
        shown, name = self.progress and world.first, trainer.process.method
        self.bar = tqdm(total=trainer.steps, initial=trainer.step, desc=name, disable=not shown, mininterval=1.0)
        stop, enough = 0, False  # the signal to stop for; what a callback says
        with closing(trainer), Held(self.path is not None, patient=world.size > 1) as signals:
            while trainer.step < trainer.steps and not stop and not enough:
                self.losses.append(trainer.advance())
                stop = world.largest(signals.caught)
                self.look(stopping=stop > 0)
                self.bar.update()
                enough = not stop and self.snapshot()
        self.bar.close()
        if stop:
            world.wait()
            signal.raise_signal(stop)
            raise KeyboardInterrupt  # where a handler returned
        if not all(bool(torch.isfinite(p).all()) for p in trainer.averages):
            raise FloatingPointError(
                f"weights are not finite after step {trainer.step}: learning_rate={trainer.rate:g} is too high"
            )
        return trainer.model()

    def look(self, stopping: bool) -> None:
        """Where this step has one: the mean loss, a checkpoint, and `on_loss`; FloatingPointError for a bad loss."""
        trainer, path, step = self.trainer, self.path, self.trainer.step
        last = step == trainer.steps
        saves = path is not None and (step % self.every == 0 or last or stopping)
        if not (step % EVERY == 0 or last or saves or step in self.snapshots):
            return
        loss = trainer.world.mean(torch.stack(self.losses).mean())
        self.losses.clear()
        if not math.isfinite(loss):
            good = f"; the last good checkpoint is {path}" if path is not None and path.exists() else ""
            raise FloatingPointError(
                f"loss is {loss} within the {EVERY} steps up to {step}: learning_rate={trainer.rate:g} is likely too "
                f"high for this data and network{good}"
            )
        self.bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        if saves and path is not None:
            checkpoints.save(trainer, path, self.keep)
        if self.on_loss is not None:
            self.on_loss(step, loss)

    def snapshot(self) -> bool:
        """Show the model where this step has a snapshot; whether training is to end, for all processes alike."""
        if self.on_snapshot is None or self.trainer.step not in self.snapshots:
            return False
        enough = self.on_snapshot(self.trainer.step, self.trainer.model())
        return bool(self.trainer.world.largest(int(bool(enough))))
