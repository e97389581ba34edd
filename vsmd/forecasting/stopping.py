"""Early stopping: the score-matching loss on the end of the training part decides when training ends."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from vsmd import files, random
from vsmd.model import Model, load
from vsmd.training.data import Data, Source
from vsmd.training.pairs import loss, pairs_at

ROWS = 2_048


class EarlyStopping:
    """To be called with (step, model) now and then: True after `patience` calls in a row without a lower loss.

    held_out: the data kept back. Each call's loss is that of the same rows, noise and times. `best` is the model with
    the lowest loss. record: a file beside which it is kept with the losses so far (`<record>.best.safetensors`,
    `<record>.losses.json`), so that a resumed run ends as an uninterrupted one.
    """

    def __init__(self, held_out: Data, patience: int, seed: int, record: Path | None = None) -> None:
        self.data, self.patience, self.seed = held_out, patience, seed
        self.losses: dict[int, float] = {}
        self._best: Model | None = None
        self.model_file = self.losses_file = None
        if record is not None:
            self.model_file = record.with_name(f"{record.name}.best.safetensors")
            self.losses_file = record.with_name(f"{record.name}.losses.json")
            if self.losses_file.exists() and self.model_file.exists() and record.exists():
                with files.refusing(self.losses_file, "the losses of a training run"):
                    losses = json.loads(files.regular(self.losses_file).read_text(encoding="utf-8"))
                    self.losses = {int(step): float(loss) for step, loss in losses.items()}

    def __call__(self, step: int, model: Model) -> bool:
        self.losses[step] = self.loss(model)
        losses = {s: loss for s, loss in self.losses.items() if s <= step}
        lowest = min(losses, key=lambda s: (losses[s], s))
        if lowest == step:
            self._best = model
            if self.model_file is not None:
                model.save(self.model_file)
        if self.losses_file is not None:
            files.write_atomic(self.losses_file, json.dumps(self.losses))
        return sum(s > lowest for s in losses) >= self.patience

    @torch.no_grad()
    def loss(self, model: Model) -> float:
        """E kappa^2 |target - net|^2 of the held-out data, averaged over directions."""
        process, device = model.process, model.score.device
        stream = random.generator(self.seed, "held out")
        x, context = Source(self.data, process.shape).draw(ROWS, stream)
        times = 1e-3 + (1 - 1e-3) * (torch.arange(ROWS) + 0.5)[torch.randperm(ROWS, generator=stream)] / ROWS
        pairs = pairs_at(process, x, times, stream, context)
        return float(loss(model.network, process.basis, pairs.map(lambda v: v.to(device))))

    def best(self) -> Model:
        """The model with the lowest loss; of a finished run, from its file."""
        if self._best is not None:
            return self._best
        assert self.model_file is not None
        return load(self.model_file)
