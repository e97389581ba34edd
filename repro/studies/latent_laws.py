"""Laws of codes whose smoothed score is known: the network that makes a bridge's drift exact, and a drift's error."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from repro.studies.convergence import Row, rates
from repro.studies.derivations import Zero
from vsmd import random
from vsmd.latent.bridge import STOP, drift, paper_time, sigma_of
from vsmd.model import Model
from vsmd.priors import Mixture
from vsmd.processes import ForwardProcess

Score = Callable[[Tensor, float], Tensor]
TIMES = [0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 0.998]  # of the paper's clock, where drifts are compared


class Exact(nn.Module):
    """E[target | z] for codes whose smoothed law has a known score(x, s), x in data coordinates: no training.

    In a bridge's model it makes the drift exact: what is left is the start, the steps and the early stop.
    """

    def __init__(self, process: ForwardProcess, score: Score) -> None:
        super().__init__()
        self.process, self.score = process, score

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        """E[target | z] (n, d) for z (n, d) and log_snr (1, d): of the first row's times."""
        mean, var = self.process.known()
        std = var.sqrt()
        s = (std / log_snr.double().exp())[0]  # the noise, the same in all directions
        total = var + s.square()
        centred = z.double() * total.sqrt()
        score = self.score(self.process.basis.back(centred) + mean, float(s.flatten()[0]))
        return ((self.process.basis.into(score) + centred / total) * s * total.sqrt() / std).to(z)


def empirical_score(points: Tensor) -> Score:
    """Score of the law of `points` (m, d) smoothed with N(0, s² I): (Σ w_j y_j - x)/s²."""
    centres = points.double()

    def score(x: Tensor, s: float) -> Tensor:
        weight = (-0.5 * torch.cdist(x, centres).square() / s**2).softmax(1)
        return (weight @ centres - x) / s**2

    return score


@dataclasses.dataclass(frozen=True, eq=False)
class Codes:
    """A sampler of five Gaussians of equal weight in R^d, centred; one width an axis, from .5 down to .1."""

    means: Tensor
    std: Tensor

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws (n, d), float32."""
        which = torch.randint(len(self.means), (n,), generator=generator)
        noise = torch.randn(n, len(self.std), generator=generator, dtype=torch.float64)
        return (self.means[which] + self.std * noise).float()

    def score(self, x: Tensor, s: float) -> Tensor:
        """∇log q_s(x) in closed form, float64."""
        var = self.std.square() + s**2
        off = self.means - x[:, None]
        weight = (-0.5 * (off.square() / var).sum(-1)).softmax(1)
        return (weight[:, :, None] * off).sum(1) / var

    def start(self, process: ForwardProcess) -> ForwardProcess:
        """The process whose start is q_σ itself: a mixture law of the statistic, exact in the process's directions."""
        mean, var = process.known()
        snr = process.snr(torch.ones(1, dtype=torch.float64))[0][0]
        norm = (1 + snr.square()).sqrt()
        scale = snr / norm / var.sqrt()
        centres = process.basis.into(self.means - mean) * scale
        turned = process.basis.into(torch.diag(self.std))  # rows: the law's axes in directions
        cov = turned.T @ turned
        cov = scale[:, None] * cov * scale + torch.diag(1 / norm.square())
        size = len(self.means)
        factor = torch.linalg.cholesky(cov).expand(size, -1, -1).contiguous()
        law = Mixture(torch.full((size,), 1 / size, dtype=torch.float64), centres, factor)
        return dataclasses.replace(process, prior="mixture", mixture=law)


def five_gaussians(dim: int) -> Codes:
    """The codes' law in R^dim, a fixed one for each dim, of root mean square deviation near 1."""
    means = torch.randn(5, dim, generator=random.generator(0, "five Gaussians", dim), dtype=torch.float64)
    means = means - means.mean(0)
    std = torch.logspace(np.log10(0.5), -1, dim, dtype=torch.float64)
    return Codes(means / means.square().mean().sqrt() * 0.95, std)


def drift_errors(model: Model, codes: Codes, seed: int, points: int = 4_000) -> list[Row]:
    """How far the learned drift is from the closed form, on draws of the law that it moves.

    Rows of `latent_rates`: drift_error, x = t of the paper's clock: E|b̂ - b|²/E|b|² at X_t ~ q, and of the Gaussian
    part alone (`drift_error_gaussian`); girsanov_kl: (1/2σ²)∫E|b̂ - b|²dt by the trapezoid rule, a bound on KL.
    """
    sigma, stream = sigma_of(model.process), random.generator(seed, "drift points")
    gaussian = dataclasses.replace(model, network=Zero())
    shares: dict[str, list[float]] = {"drift_error": [], "drift_error_gaussian": []}
    squares: list[float] = []
    nodes = [*TIMES, STOP]
    for t in nodes:
        s = sigma * (1 - t) ** 0.5
        x = codes(points, stream).double() + s * torch.randn(points, len(codes.std), generator=stream).double()
        true = sigma**2 * codes.score(x, s)
        size = float(true.square().sum(1).mean())
        for name, each in (("drift_error", model), ("drift_error_gaussian", gaussian)):
            error = float((drift(each, x, t).double() - true).square().sum(1).mean())
            shares[name].append(error / size)
            if name == "drift_error":
                squares.append(error)
    setting = f"five Gaussians, d {len(codes.std)}"
    rows = [r for name, values in shares.items() for r in rates(name, setting, nodes, values, None, 0.0, seed)]
    bound = float(np.trapezoid(squares, nodes)) / (2 * sigma**2)
    last = float(paper_time(model.process, torch.tensor(model.t_min, dtype=torch.float64)))
    return rows + rates("girsanov_kl", setting, [last], [bound], None, 0.0, seed)
