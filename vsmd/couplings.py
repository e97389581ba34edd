r"""A coupling of the data with the prior by a mixture potential: the fit, draws, and its second moments.

In coordinates w = L^{-1} a_T, with Sigma = L L' the covariance of a_T | x_0 under the reference (v_0 ~ N(0, 1)
marginalised) and u = L^{-1} F x_0 its mean, every potential that is integrable against the reference is a mixture of
Gaussians over the standard normal, phi_T(a) = sum_j pi_j N(w; mu_j, A_j A_j') / N(w; 0, I). Then

    Z(x_0) = E[phi_T(a_T) | x_0] = exp(-1/2 |u|^2) sum_j pi_j exp(u'mu_j + 1/2 |A_j'u|^2),
    a_T | x_0, j:  w ~ N(mu_j + A_j A_j'u, A_j A_j'),   P(j | x_0) the j-th share of Z(x_0).

The fit minimises E log Z(x_0) - E_prior log phi_T(a_T), the dual of the Schrödinger problem up to a constant, so that
the controlled process ends in the prior (Korotin, Gushchin, Burnaev 2024, without velocity).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from vsmd import checks, kernels, random
from vsmd.potentials import PART, Potential, lifted, solve

FULL_UP_TO, FULL_BY_DEFAULT = 64, 8  # directions in one block: at most, and where nobody says
CHOICES = (1, 8, 32)  # numbers of components that the held-out objective chooses among
HELD, LOOKS = 4_000, 10  # points and prior draws of that objective; times it is computed, and dead components restarted
DEAD = 0.02  # share of components, relative to an equal one, below which they are dead
SPREAD = 0.5  # of the first means, relative to the conditional law
MEMORY = 2**31  # bytes that a fit may take


@dataclass(frozen=True)
class MixtureFit:
    """How a mixture potential is fitted.

    components: their number (default None: the best of 1, 8 and 32 by the objective on held-out points).
    full: blocks over all directions, at most 64, in place of a block a direction (default None: up to 8 directions).
    steps, batch_size: of Adam (default 3,000 of 512). learning_rate: its first rate, with cosine decay (default 1e-2).

    Raises ValueError naming the argument, its value and what is allowed.
    """

    components: int | None = None
    full: bool | None = None
    steps: int = 3_000
    batch_size: int = 512
    learning_rate: float = 1e-2

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", *(("components",) if self.components is not None else ())):
            checks.positive_int(name, getattr(self, name))
        checks.positive("learning_rate", self.learning_rate)

    def check(self, points: int, dim: int, k: int) -> None:
        """ValueError for more components than points, or d x components beyond memory: before anything is fitted."""
        if self.components is not None and self.components > points:
            raise ValueError(f"components={self.components}: must be at most the number of points, {points}")
        if self.full and dim > FULL_UP_TO:
            raise ValueError(f"full=True: {dim} directions; must be at most {FULL_UP_TO}")
        size = k * dim if self.blocks(dim) == 1 else k
        most = self.components or CHOICES[-1]
        need = 8 * (8 * most * dim * k * size + 6 * self.batch_size * dim * k * size)
        if need > MEMORY:
            raise ValueError(
                f"components={most}: with {dim} directions takes {need / 2**30:.1f} GiB; must be at most "
                f"{MEMORY / 2**30:.0f}: fewer components, a smaller batch_size or full=False"
            )

    def blocks(self, dim: int) -> int:
        """Number of blocks for so many directions."""
        return 1 if (dim <= FULL_BY_DEFAULT if self.full is None else self.full) else dim


class Coupling(NamedTuple):
    """log pi (m,), mu (m, blocks, size), A (m, blocks, size, size) lower; lower: L (k, k); start: L^{-1} F (k,)."""

    log_weight: Tensor
    mean: Tensor
    scale: Tensor
    lower: Tensor
    start: Tensor

    def pushed(self, x: Tensor) -> Tensor:
        """u (n, blocks, size) of data x (n, *shape) in directions."""
        return (x.to(self.start).flatten(1)[..., None] * self.start).reshape(len(x), *self.mean.shape[1:])

    def shares(self, u: Tensor) -> Tensor:
        """Logarithms (n, m) of the components of Z at u."""
        return self.log_weight + u.flatten(1) @ self.mean.flatten(1).T + 0.5 * quadratic(self.scale @ self.scale.mT, u)

    def whitened(self) -> Potential:
        """phi_T as a function of w."""
        eye = torch.eye(self.scale.shape[-1], dtype=self.scale.dtype).expand(self.scale.shape)
        inverse = solve(self.scale, eye)
        precision = inverse.mT @ inverse
        linear = (precision @ self.mean[..., None])[..., 0]
        size = self.scale.diagonal(dim1=-2, dim2=-1).log().flatten(1).sum(1)
        return Potential(self.log_weight - size - 0.5 * (linear * self.mean).flatten(1).sum(1), linear, precision - eye)

    def potential(self) -> Potential:
        """phi_T."""
        constant, linear, precision = self.whitened()
        back = torch.linalg.inv(lifted(kernels.entries(self.lower), linear.shape[-1]))
        return Potential(constant, (back.T @ linear[..., None])[..., 0], back.T @ precision @ back)

    def log_z(self, x: Tensor) -> Tensor:
        """log E[phi_T(a_T) | x_0] (n,) of data in directions."""
        parts = (self.pushed(rows) for rows in x.split(self._rows))
        return torch.cat([self.shares(u).logsumexp(1) - 0.5 * u.square().flatten(1).sum(1) for u in parts])

    @property
    def _rows(self) -> int:
        return max(1, PART // self.scale[0].numel())

    def ends(self, x: Tensor, stream: torch.Generator) -> Tensor:
        """Delta = a_T - F x_0 (n, k, d), one draw for each of data x (n, *shape) in directions; float64."""
        k, out = len(self.start), []
        for rows in x.split(self._rows):
            u = self.pushed(rows)
            j = torch.multinomial(self.shares(u).softmax(1), 1, generator=stream)[:, 0]
            noise = torch.randn(u.shape, generator=stream, dtype=u.dtype)
            if self.scale[0].numel() <= 2**8:
                factor = self.scale[j]
                w = (factor @ (factor.mT @ u[..., None] + noise[..., None]))[..., 0]
            else:  # a product a component: no (n, size, size) of factors
                w = torch.empty_like(u)
                for component in j.unique().tolist():
                    rows_of, factor = j == component, self.scale[component]
                    w[rows_of] = ((u[rows_of, :, None] @ factor + noise[rows_of, :, None]) @ factor.mT)[:, :, 0]
            out.append((self.mean[j] + w - u).view(len(rows), -1, k) @ self.lower.T)
        return torch.cat(out).mT

    def moments(self, x: Tensor, unit: Tensor, seed: int) -> Tensor:
        """E[q q'], q = (xi, Delta), per direction, (1 + k, 1 + k, *shape); xi = x_0 over `unit`, E xi^2 = 1."""
        xi = (x.double() / unit)[:, None]
        q = torch.cat([xi, self.ends(x, random.generator(seed, "coupling")).view(len(x), -1, *x.shape[1:])], 1)
        return torch.einsum("ni...,nj...->ij...", q, q) / len(q)


def quadratic(m: Tensor, y: Tensor) -> Tensor:
    """y'M_j y (n, m) for matrices in blocks (m, blocks, size, size)."""
    return (y[..., :, None] * y[..., None, :]).flatten(1) @ m.flatten(1).T


def gaussian(std: Tensor, lower: Tensor, start: Tensor, target: float) -> Tensor:
    """K (d, k, k): the one component that takes N(0, std^2) to N(0, target I), the steered one with v_0 free, in w."""
    root = torch.linalg.inv(lower) * target**0.5
    pushed = (root.T @ start) * std[:, None]
    values, axes = torch.linalg.eigh(pushed[:, :, None] * pushed[:, None, :])
    turned = root @ axes
    return (turned / (0.5 + (0.25 + values.clamp(min=0)).sqrt())[:, None, :]) @ turned.mT


class Fit:
    """Adam on (log pi, mu, A) from a start of several components around the Gaussian solution.

    x: points (n, d) in directions; the last tenth, at most 4,000, is held out. lower, start: of `Coupling`. target:
    variance of each component of the prior.
    """

    def __init__(self, x: Tensor, std: Tensor, lower: Tensor, start: Tensor, target: float, seed: int) -> None:
        held = max(1, min(len(x) // 10, HELD))
        self.x, self.held, self.std = x[:-held], x[-held:], std
        self.lower, self.start, self.target, self.seed = lower, start, target, seed
        self.whiten = torch.linalg.inv(lower) * target**0.5
        self.ends = self.prior(HELD, random.generator(seed, "mixture held out"))
        self.restarted = 0

    def prior(self, n: int, stream: torch.Generator) -> Tensor:
        """n draws w (n, d, k) of the prior."""
        return torch.randn(n, self.x.shape[1], len(self.start), generator=stream, dtype=torch.float64) @ self.whiten.T

    def first(self, components: int, blocks: int) -> list[Tensor]:
        """Log-weights, means, and factors whose diagonal is in logarithms, each to be optimised."""
        scale = torch.linalg.cholesky(gaussian(self.std, self.lower, self.start, self.target))
        scale = scale if blocks > 1 else torch.block_diag(*scale)[None]
        stream = random.generator(self.seed, "mixture start", components)
        noise = torch.randn(components, *scale.shape[:2], generator=stream, dtype=torch.float64)
        mean = SPREAD * (components > 1) * (scale @ noise[..., None])[..., 0]
        raw = scale.tril(-1) + torch.diag_embed(scale.diagonal(dim1=-2, dim2=-1).log())
        values = [torch.zeros(components, dtype=torch.float64), mean, raw.expand(components, *raw.shape).clone()]
        return [v.requires_grad_() for v in values]

    def coupling(self, values: list[Tensor]) -> Coupling:
        """The coupling that the optimised values stand for."""
        weight, mean, raw = values
        scale = raw.tril(-1) + torch.diag_embed(raw.diagonal(dim1=-2, dim2=-1).exp())
        return Coupling(weight.log_softmax(0), mean, scale, self.lower, self.start)

    def objective(self, coupling: Coupling, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """E log Z - E log phi_T, and every component's larger mean share of the two."""
        z = coupling.shares(coupling.pushed(x))
        phi = coupling.whitened().terms(w.reshape(len(w), *coupling.mean.shape[1:]))
        used = torch.maximum(z.detach().softmax(1).mean(0), phi.detach().softmax(1).mean(0))
        return z.logsumexp(1).mean() - phi.logsumexp(1).mean(), used

    def held_out(self, coupling: Coupling) -> float:
        """The objective on held-out points."""
        with torch.no_grad():
            parts = zip(self.held.chunk(8), self.ends.chunk(8))
            return sum(float(self.objective(coupling, x, w)[0]) for x, w in parts) / 8

    def run(self, components: int, settings: MixtureFit, progress: bool) -> tuple[float, Coupling]:
        """The best held-out objective of a fit with so many components, and the coupling that has it."""
        values = self.first(components, settings.blocks(self.x.shape[1]))
        adam = torch.optim.Adam(values, lr=settings.learning_rate)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, settings.steps)
        best = self.held_out(self.coupling(values)), Coupling(*(v.detach() for v in self.coupling(values)))
        total, look = torch.zeros(components, dtype=torch.float64), max(1, settings.steps // LOOKS)
        bar = tqdm(range(settings.steps), desc=f"mixture of {components}", disable=not progress, mininterval=1.0)
        for step in bar:
            stream = random.generator(self.seed, "mixture", components, step)
            rows = torch.randint(len(self.x), (settings.batch_size,), generator=stream)
            loss, used = self.objective(self.coupling(values), self.x[rows], self.prior(len(rows), stream))
            adam.zero_grad()
            loss.backward()
            adam.step()
            decay.step()
            total += used
            if (step + 1) % look and step + 1 < settings.steps:
                continue
            now = self.held_out(self.coupling(values))
            bar.set_postfix(held_out=f"{now:.4f}", refresh=False)
            if now < best[0]:
                best = now, Coupling(*(v.detach().clone() for v in self.coupling(values)))
            if components > 1 and step < 0.7 * settings.steps:
                self.restart(values, adam, total / total.sum(), random.generator(self.seed, "restart", step))
            total.zero_()
        return best

    @torch.no_grad()
    def restart(self, values: list[Tensor], adam: torch.optim.Adam, used: Tensor, stream: torch.Generator) -> None:
        """Put every dead component beside one of the most used ones, with half of its weight."""
        dead = (used < DEAD / len(used)).nonzero()[:, 0]
        busy = used.argsort(descending=True)[: len(used) - len(dead)]
        for i, j in enumerate(dead.tolist()):
            near = int(busy[i % len(busy)])
            values[0][near] -= math.log(2)
            for value in values:
                value[j] = value[near]
            noise = torch.randn(values[1][j].shape, generator=stream, dtype=torch.float64)
            values[1][j] += SPREAD * values[2][near].diagonal(dim1=-2, dim2=-1).exp() * noise
            for value in values:
                for average in ("exp_avg", "exp_avg_sq"):
                    adam.state[value][average][j] = 0
        self.restarted += len(dead)


def fitted(fit: Fit, settings: MixtureFit, progress: bool = False) -> Coupling:
    """The coupling that is best on held-out points, of as many components as asked for or of `CHOICES`.

    A warning says how many components died on the way and were restarted. Raises FloatingPointError where nothing
    finite came out.
    """
    numbers = [settings.components] if settings.components else [m for m in CHOICES if m <= len(fit.x)]
    held, coupling = min((fit.run(m, settings, progress) for m in numbers), key=lambda result: result[0])
    if fit.restarted:
        warnings.warn(f"mixture: {fit.restarted} components died on the way and were restarted", stacklevel=2)
    if not math.isfinite(held):
        raise FloatingPointError(
            f"mixture: held-out objective {held}; learning_rate={settings.learning_rate:g} is too high"
        )
    return coupling
