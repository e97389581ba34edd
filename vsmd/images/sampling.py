"""Drawing images, each from a seed of its own: the same image whatever the batch, or the number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vsmd import checks
from vsmd.data.images import to_uint8
from vsmd.model import Model
from vsmd.samplers import SOLVERS
from vsmd.samplers.generation import steps_within
from vsmd.training import Compute

FIXED = [name for name in SOLVERS if name != "rk45"]  # solvers whose evaluations are known beforehand


class Painter:
    """Draws images from a model: image `seed` is a function of the model, the solver and that seed alone.

    But for rounding, that is: a network adds up in another order in batches of another size, which moves a value by
    about 1e-6, and once in a while a pixel by one of its 256 steps.

    solver: a name of `vsmd.samplers.SOLVERS` with fixed steps (default "exponential").
    evaluations: network calls an image (default 20), of which Heun takes two a step.
    grid_power: of the times t = u^power (default 2).
    denoise: the last evaluation takes off the noise that is left where the grid ends (default True); SGM's is seen.
    guidance: w of s_0 + w (s_c - s_0), for a model trained with `context_dropout` (default 1: the label's own score).
    batch_size: images drawn at once (default 64).
    compute: precision and layout of the network. checked: as of `Model.sample`.

    Raises ValueError for an unknown solver, or evaluations too few for one step.
    """

    def __init__(
        self,
        model: Model,
        solver: str = "exponential",
        evaluations: int = 20,
        *,
        grid_power: float = 2.0,
        denoise: bool = True,
        guidance: float = 1.0,
        batch_size: int = 64,
        compute: Compute | None = None,
        checked: bool = True,
    ) -> None:
        self.model, self.law = model, model.process.prior_law()
        self.batch_size, self.checked = checks.positive_int("batch_size", batch_size), checked
        network = compute.called(compute.laid_out(model.network)) if compute else None
        steps = steps_within(solver, evaluations, denoise)
        self.generation = model.generation(
            solver, steps, grid_power=grid_power, denoise=denoise, guidance=guidance, network=network, checked=checked
        )
        self.evaluations = self.generation.evaluations

    def __call__(self, seeds: Sequence[int], labels: Tensor | None = None) -> Tensor:
        """The images of these seeds, uint8 (n, C, H, W); labels (n,) for a network trained on them."""
        parts = [part for _, part in self.batches(seeds, labels)]
        return torch.cat(parts) if parts else torch.empty(0, *self.model.process.shape, dtype=torch.uint8)

    def batches(self, seeds: Sequence[int], labels: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
        """The same batch by batch, with the rows that each is."""
        labels = self.model.score.context_for(labels, len(seeds), self.model.context_dropout > 0)
        for first in range(0, len(seeds), self.batch_size):
            rows = slice(first, min(first + self.batch_size, len(seeds)))
            yield rows, to_uint8(self.floats(seeds[rows], None if labels is None else labels[rows]))

    def floats(self, seeds: Sequence[int], labels: Tensor | None = None) -> Tensor:
        """One batch of images (n, C, H, W) before they are rounded, float32."""
        start, noise = self.model.draws_by_row(self.law, seeds)
        return self.generation(start, noise, labels)
