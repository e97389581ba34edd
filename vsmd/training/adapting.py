"""The backward simulation that adaptation needs: the reverse SDE with the current score, its moments on the way."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vsmd import random
from vsmd.adaptation import Adaptation, Moments
from vsmd.priors import GaussianPrior
from vsmd.samplers.base import time_grid
from vsmd.samplers.heun import StochasticHeun
from vsmd.scores import Score

EDGE = 4.0  # standard deviations of the statistic beyond which no network has seen data


class WithinLaw(nn.Module):
    """A network asked no further out than it was trained: beyond the edge of the law it answers as at the edge.

    The fixed target is wider than the law that a stiff process ends in, and what a network says out there is anything.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.spatial = network, getattr(network, "spatial", False)

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        return self.network(z.clamp(-EDGE, EDGE), log_snr, context)


def backward_moments(
    score: Score, how: Adaptation, seed: int, step: int, context: Tensor | None = None, t_min: float = 1e-3
) -> Moments:
    """Simulate `how.paths` backward paths and return w-weighted moments per piece and direction, w = beta g^2 dt.

    Heun for the SDE on `how.nodes` steps, denser towards the data: Euler–Maruyama's bias there exceeds the gradient
    itself for stretched data and moves the fixed point. Trapezoid rule over all nodes, the last one included.
    """
    process, score = score.process, Score(score.process, WithinLaw(score.network))
    times = time_grid(how.nodes, t_min, 2.0)
    solver = StochasticHeun(score, times, context)
    stream = random.generator(seed, "adaptation", step)
    if how.start == "target":
        shape = (how.paths, process.k, *process.shape)
        a = torch.randn(shape, generator=stream) * process.reference_variance() ** 0.5
    else:
        a = GaussianPrior(process.terminal(0.0)[1]).sample(how.paths, stream)
    a = a.to(score.device)
    h = torch.tensor(solver.h, dtype=torch.float64)
    weight = 0.5 * (torch.cat([h, h.new_zeros(1)]) + torch.cat([h.new_zeros(1), h]))
    weight = weight * process.schedule.beta(times) * (process.gamma if process.k == 2 else 1.0)
    piece = (times * how.pieces).long().clamp(max=how.pieces - 1)
    sums = {name: torch.zeros(how.pieces, *process.shape, dtype=torch.float64) for name in Moments._fields[1:]}
    total = torch.zeros(how.pieces, dtype=torch.float64).index_add_(0, piece, weight)
    with torch.no_grad():
        for i in range(len(times)):
            s = score(a, solver.table.at(i), context)
            x, v = a[:, 0], a[:, -1]
            for name, (left, right) in {
                "xx": (x, x),
                "sx": (s, x),
                "xv": (x, v),
                "vv": (v, v),
                "sv": (s, v),
            }.items():
                sums[name][piece[i]] += weight[i] * (left * right).mean(0).double().cpu()
            if i < how.nodes:
                a = solver.advance(a, s, i, stream)
    return Moments(total.view(-1, *[1] * len(process.shape)), **sums)
