"""Drawing images, each from a seed of its own: the same image whatever the batch, or the number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vsmd import checks, random
from vsmd.data.images import to_uint8
from vsmd.model import Model
from vsmd.samplers import SOLVERS, Solver, integrate, make_solver, solver_class, time_grid
from vsmd.scores import Score
from vsmd.training import Compute

FIXED = [name for name in SOLVERS if name != "rk45"]  # solvers whose evaluations are known beforehand


class Streams(TorchFunctionMode):
    """Inside, `torch.randn` draws each row of its result from a generator of its own."""

    def __init__(self, streams: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.streams = streams

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not torch.randn:
            return func(*args, **kwargs)
        shape, dtype = args[0], kwargs.get("dtype")
        return torch.stack([torch.randn(shape[1:], generator=stream, dtype=dtype) for stream in self.streams])


def steps_of(solver: str, evaluations: int, denoise: bool = True) -> int:
    """Steps of `solver` for so many network calls an image, of which denoising takes one.

    ValueError for an unknown solver, or evaluations too few for a step.
    """
    each = solver_class(checks.one_of("solver", solver, FIXED)).evaluations
    if checks.positive_int("evaluations", evaluations) < each + denoise:
        what = f"a step of {solver} and denoising take" if denoise else f"a step of {solver} takes"
        raise ValueError(f"evaluations={evaluations}: must be at least {each + denoise}, what {what}")
    return (evaluations - denoise) // each


class Painter:
    """Draws images from a model: image `seed` is a function of the model, the solver and that seed alone.

    But for rounding, that is: a network adds up in another order in batches of another size, which moves a value by
    about 1e-6, and once in a while a pixel by one of its 256 steps.
    solver: one of `vsmd.samplers.SOLVERS` with fixed steps; evaluations: network calls an image, of which Heun takes
    two a step; grid_power: of the times t = u^power. denoise: the last evaluation gives E[x_0 | a] where the grid ends,
    at t = 1e-3. Without it the noise of that time stays in the image: of standard deviation .1 with SGM at beta = 10,
    which pixels show, .005 with CLD, which they do not. compute: precision and layout of the network.
    Raises ValueError for an unknown solver, or evaluations too few for one step.
    """

    def __init__(
        self,
        model: Model,
        solver: str = "heun",
        evaluations: int = 250,
        *,
        grid_power: float = 2.0,
        denoise: bool = True,
        batch_size: int = 64,
        compute: Compute | None = None,
    ) -> None:
        self.model, self.denoise, steps = model, denoise, steps_of(solver, evaluations, denoise)
        self.batch_size = checks.positive_int("batch_size", batch_size)
        network = compute.called(compute.laid_out(model.network)) if compute else model.network
        self.score, self.law = Score(model.process, network), model.process.prior_law()
        self.solver: Solver = make_solver(solver, self.score, time_grid(steps, model.t_min, grid_power))
        self.evaluations = steps * self.solver.evaluations + denoise

    def __call__(self, seeds: Sequence[int], labels: Tensor | None = None) -> Tensor:
        """The images of these seeds, uint8 (n, C, H, W); labels (n,) for a network trained on them."""
        parts = [part for _, part in self.batches(seeds, labels)]
        return torch.cat(parts) if parts else torch.empty(0, *self.model.process.shape, dtype=torch.uint8)

    def batches(self, seeds: Sequence[int], labels: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
        """The same batch by batch, with the rows that each is."""
        for first in range(0, len(seeds), self.batch_size):
            rows = slice(first, min(first + self.batch_size, len(seeds)))
            yield rows, to_uint8(self.floats(seeds[rows], None if labels is None else labels[rows]))

    def floats(self, seeds: Sequence[int], labels: Tensor | None = None) -> Tensor:
        """One batch of images (n, C, H, W) before they are rounded, float32."""
        streams = [random.generator(seed, "image") for seed in seeds]
        start = torch.cat([self.law.sample(1, stream) for stream in streams]).to(self.score.device)
        solver = self.solver
        solver.context = None if labels is None else labels.to(self.score.device)
        if solver.stochastic:
            with Streams(streams):
                end = integrate(solver, start, streams[0])
        else:
            end = integrate(solver, start)
        x = self.denoised(end, solver.context) if self.denoise else end[:, 0]
        return self.model.process.from_directions(x.cpu())

    @torch.no_grad()
    def denoised(self, a: Tensor, context: Tensor | None) -> Tensor:
        """E[x_0 | a] of states a at the grid's end, in directions."""
        return self.score.denoise(a, self.solver.table.at(len(self.solver.times) - 1), context).float()
